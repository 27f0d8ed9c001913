"""Reading and writing splats, images and videos."""
