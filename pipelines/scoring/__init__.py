"""How far generated pictures are from real ones: networks, sets of pictures, measures, and the verb."""
