"""The running scanner's intake, steps, worker, retries, schedule, retention and ledger."""
