"""Export and import of model packages."""
