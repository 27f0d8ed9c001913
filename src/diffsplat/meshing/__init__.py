"""Splats to a closed, textured triangle mesh."""
