"""What survives a power cut: durable writes, locks, SQLite files."""
