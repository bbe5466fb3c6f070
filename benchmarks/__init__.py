"""Measurements of this project beside its peers, made in one run: ``python -m benchmarks``; not part of the product."""
