"""Adapters for frameworks and agents; each module imports its library only when it is used."""
