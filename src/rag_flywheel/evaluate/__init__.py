"""The evaluate room: measures and gates. It knows no store, no index and no model."""
