"""The parts of a latent store: shards, a seal over all of them, a writer, and a reader for training."""
