"""The client without asyncio, written by tests/support/synchronous.py."""
