"""Triangle meshes: files, renderer, and the views that they are rendered from."""
