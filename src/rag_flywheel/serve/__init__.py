"""The serve room: one loaded version answers queries."""
