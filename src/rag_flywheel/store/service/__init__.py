"""The records of the HTTP service, in a SQLite file of its own: keys, repeated requests, jobs."""
