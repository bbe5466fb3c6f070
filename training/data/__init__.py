"""From studies to a training store: pairing, registration, splits, pairs and their windows."""
