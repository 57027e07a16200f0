"""Stage two, z -> codes: modules, one file per variant, losses, training."""
