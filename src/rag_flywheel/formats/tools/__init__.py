"""Readers of the files that other tools export: retrievals, votes and scores, one at a time."""
