"""Model packages on their way out and in."""
