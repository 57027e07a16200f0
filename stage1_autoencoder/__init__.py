"""Stage one, pixels <-> latents: networks, losses, training, and the encoding of data sets."""
