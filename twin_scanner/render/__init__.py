"""One CT to all its result files; knows no ledger and no network."""
