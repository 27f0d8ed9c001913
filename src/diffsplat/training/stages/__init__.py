"""What the trainer trains."""
