"""A server of two generators: a trained run, and one with gates and noise that shows."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from pipelines.explore.explorer import Explorer
from pipelines.explore.server import Server
from pipelines.sample import load_generator
from stage1_autoencoder.networks import Autoencoder
from stage2_codegen.codes import CodeScale
from stage2_codegen.image_generator import ImageGenerator
from stage2_codegen.variants import build_networks
from stage2_codegen.variants.sle_networks import NoiseInjection
from tests.tiny_variants import TINY

GATED_SIDE = 32


def gated_generator(**overrides: int) -> ImageGenerator:
    """Of pixels, so that pictures are codes."""
    torch.manual_seed(0)
    G, _ = build_networks("sle", (3, GATED_SIDE, GATED_SIDE), **TINY["sle"], **overrides)
    for module in G.modules():
        if isinstance(module, NoiseInjection):
            torch.nn.init.constant_(module.weight, 0.3)
    scale = CodeScale((0.0,) * 3, (1.0,) * 3)
    names = ["rose", "tulip"] if overrides else []
    G.eval().requires_grad_(False)
    return ImageGenerator(G, scale, Autoencoder.built_in("pixels"), GATED_SIDE, class_names=names)


@contextmanager
def served(*generators: ImageGenerator) -> Iterator[Server]:
    lock = threading.Lock()
    explorers = [Explorer(f"runs/{number}", generator, lock) for number, generator in enumerate(generators)]
    with Server(explorers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def trained(trained_run: Path) -> ImageGenerator:
    return load_generator(trained_run)


@pytest.fixture(scope="module")
def gated() -> ImageGenerator:
    return gated_generator()


@pytest.fixture(scope="module")
def server(trained: ImageGenerator, gated: ImageGenerator) -> Iterator[Server]:
    with served(trained, gated) as running:
        yield running
