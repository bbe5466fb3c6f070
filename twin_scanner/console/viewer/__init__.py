"""The slice viewer: a finished job's CT, PET and districts, drawn by the server; it knows no ledger."""
