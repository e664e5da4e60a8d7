"""Feedback of other tools, fetched from their APIs by their own clients."""
