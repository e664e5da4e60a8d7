"""The curate room: events become judgments."""
