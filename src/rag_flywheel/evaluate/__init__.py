"""The evaluate room: measures and gates."""
