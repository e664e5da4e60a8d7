"""The store room: everything that cannot be rebuilt, in one SQLite file. All SQL of the project is here."""
