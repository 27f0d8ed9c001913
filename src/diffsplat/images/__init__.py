"""Images of objects: edges, depth maps, blurring, background removal."""
