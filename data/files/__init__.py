"""Files that a crash cannot spoil: atomic writes and locks, checksums, checkpoints, run folders, published weights."""
