"""A challenger learns, and the gate decides what serves."""
