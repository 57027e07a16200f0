"""A configuration of every variant small enough to run in a test."""

from typing import Any

TINY: dict[str, dict[str, Any]] = {
    "projected": {"width": 4, "z_dim": 8, "view_side": 64},
    "accel": {"width": 16, "z_dim": 8},
    "giu": {"width": 4, "z_dim": 8, "group_channels": 4, "se_reduction": 2},
    "lrm": {"width": 2, "critic_width": 2, "z_dim": 8, "metadata_dim": 8, "metadata_rows": 16},
    "sle": {"width": 4, "z_dim": 8},
    "gca": {"width": 4, "z_dim": 8},
    "dcgan": {"width": 4, "z_dim": 8},
    "lsgan": {"width": 4, "z_dim": 8},
    "wgan-gp": {"width": 4, "z_dim": 8, "n_critic": 2},
    "sngan": {"width": 4, "z_dim": 8},
    "sagan": {"width": 4, "z_dim": 8},
    "consingan": {"width": 16, "stages": 3, "stage_kimg": 0.016, "picture": 0},
    "r3": {"width": 16, "z_dim": 8, "burnin_kimg": 0.1},
}
