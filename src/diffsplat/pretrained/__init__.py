"""Weights on disk and on the hub: catalogue, layout, readers, folders."""
