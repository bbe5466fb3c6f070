"""A challenger is trained, and the gate decides what serves."""
