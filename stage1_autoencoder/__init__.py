"""Stage one, pixels <-> latents: networks, losses, training, encoding."""
