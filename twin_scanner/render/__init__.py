"""One CT to all its result files: read, synthesise, measure, write; it knows no ledger and no network connection."""
