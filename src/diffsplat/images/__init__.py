"""Image processing: edges, depth maps, blur, background removal, colours."""
