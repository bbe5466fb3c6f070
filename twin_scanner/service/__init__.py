"""The ledger, the worker and the scheduler of the running scanner."""
