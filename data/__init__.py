"""Every byte on disk: images in, latents, checkpoints, run folders. No neural network is defined here."""
