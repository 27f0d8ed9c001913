"""The diffsplat command line."""
