"""Reports on an index: its state, its versions and their stories, gaps, and progress of long work."""
