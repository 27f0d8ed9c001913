"""Pages in the browser: what they are made of, and servers of them."""
