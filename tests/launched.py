"""The environment of one of several processes, as `pipelines.launch` and torchrun set it."""

import pytest


def environment_of(rank: int, size: int, port: int = 29500) -> dict[str, str]:
    """What describes a process as one of several on this machine."""
    group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in group.items()}}


def set_group(patch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    """Describe this process as one of several on this machine."""
    for name, value in environment_of(rank, size).items():
        patch.setenv(name, value)
