"""Numbers and tables."""
