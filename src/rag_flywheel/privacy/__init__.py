"""Users and their data: ids as keyed hashes, forgetting a user, making old events anonymous."""
