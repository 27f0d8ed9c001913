"""From a prompt to splats."""
