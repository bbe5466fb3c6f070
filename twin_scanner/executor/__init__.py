"""Where work runs: a local worker process today."""
