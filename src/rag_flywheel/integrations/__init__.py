"""Other frameworks, each in a module of its own that imports its library: import the one you use."""
