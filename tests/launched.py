"""The environment of one of several processes, as `pipelines.launch` and torchrun set it."""

import pytest


def set_group(patch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    """Describe this process as one of several on this machine."""
    group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    for name, value in {**group, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29500}.items():
        patch.setenv(name, str(value))
