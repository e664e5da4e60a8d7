"""Brings files into the index: names them, reads them, and adds and removes their passages."""
