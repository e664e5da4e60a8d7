"""The capture room: what people say of answers becomes events."""
