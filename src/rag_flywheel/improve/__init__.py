"""The improve room: parameters are set from what was asked and voted on."""
