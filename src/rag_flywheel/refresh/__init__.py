"""The refresh: builds the next version of an index, learns from votes, and makes it live."""
