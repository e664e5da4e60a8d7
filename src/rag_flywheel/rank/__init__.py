"""The rank room: how candidates are scored. Pure functions of (parameters, evidence view, candidates)."""
