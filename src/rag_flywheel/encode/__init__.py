"""Encoders: the models that turn texts into vectors, made by name, and taught by votes."""
