"""The ledger: the one truth of the service, on SQLite or PostgreSQL."""
