"""Files that a crash cannot spoil: atomic writes and locks, checkpoints, run folders, weights of others."""
