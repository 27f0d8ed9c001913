"""One trainer and its stages."""
