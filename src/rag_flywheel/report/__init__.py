"""Reports on an index: its state, explanations of its versions, gaps, and progress of long work."""
