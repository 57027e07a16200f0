"""What a latent store is made of: shards, a seal over all of them, a writer, and a reader for training."""
