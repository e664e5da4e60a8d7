"""The index room: what can be rebuilt from the store: encoder, dense search, lexical search, fresh texts."""
