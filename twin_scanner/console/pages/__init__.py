"""The pages of the console, a file each: a router over the ledger, and its template beside the others."""
