"""Where work runs: local worker processes, and how work on any executor is waited for."""
