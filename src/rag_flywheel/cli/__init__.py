"""The command line: each command is one call on Flywheel."""

from rag_flywheel.cli.app import main

__all__ = ["main"]
