"""Other people's segmentation networks; each runs in a process of its own."""
