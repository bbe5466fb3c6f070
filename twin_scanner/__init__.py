"""The virtual PET scanner: science, service and command line. This package imports nothing."""
