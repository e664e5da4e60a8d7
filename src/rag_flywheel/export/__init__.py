"""The export room: an index's log, judgments and training sets as files for other programs."""
