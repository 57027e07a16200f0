"""Every byte on disk: images in, latents, checkpoints, run folders. No network lives here."""
