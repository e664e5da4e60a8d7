"""The capture room: feedback on answers is checked and stored as events."""
