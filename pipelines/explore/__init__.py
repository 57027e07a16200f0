"""A local page to play with trained generators: what it can draw, the server, and the page itself."""
