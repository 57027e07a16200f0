"""Two generators of other packages, on pixels, against the clock: a process of `benchmarks.race`.

    python -m benchmarks.race_rivals NAME --images FOLDER --out FOLDER --size 64 --moments SECONDS SECONDS ...

`lightweight-gan` (1.2.1) is a FastGAN of 256 px and more with attention. Its own trainer runs, unchanged but for the
lines that demand a CUDA device (`CUDA_ONLY`), with the settings of its command line apart from those printed. Samples
are those of its plain generator in evaluation mode: its averaged one only starts to move after 20,000 steps.

`mimicry-sngan` (torch-mimicry 0.1.16) is the residual SNGAN of Miyato et al. 2018, by its own networks and their own
training steps. The package as a whole wants TensorFlow and scikit-image for its scores and its trainer, so the loop
around those steps is here, after its README: hinge loss, Adam at 2e-4 with moments 0 and 0.9, its count of critic
updates. The linear decay over 100,000 steps is left out; within a race it would take away a hundredth at most.
"""

import argparse
import importlib
import importlib.util
import json
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.images import open_images, save_png, to_float, to_uint8

SAMPLES, SEED, DRAWN_AT_ONCE = 512, 0, 16
PACKAGES = {"lightweight-gan": "lightweight_gan", "mimicry-sngan": "torch_mimicry"}
# What differs from the packages' own settings: at full width a step of theirs takes this machine minutes.
NARROWER: dict[str, dict[int, dict[str, int]]] = {
    "lightweight-gan": {
        side: {"fmap_inverse_coef": 10, "fmap_max": 128, "batch_size": 16, "gradient_accumulate_every": 1}
        for side in (64, 128)
    },
    "mimicry-sngan": {
        64: {"width": 256, "batch_size": 16, "n_dis": 5},
        128: {"width": 256, "batch_size": 16, "n_dis": 2},
    },
}
CUDA_ONLY = (
    ("assert torch.cuda.is_available()", "assert True"),
    ("self.cuda(rank)", "pass"),
    (".cuda(self.rank)", ""),
    ("f'cuda:{self.rank}'", "'cpu'"),
)


class Rival(Protocol):
    def step(self) -> int:
        """One update of the generator; how many samples it was judged by."""

    def draw(self, count: int) -> NDArray[np.uint8]:
        """(count, 3, H, W) of the present generator, from torch's random numbers."""


def bare_package(name: str) -> Path:
    """Make `name` importable without what its `__init__` imports; its folder."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"{name}: is not installed")
    package = types.ModuleType(name)
    package.__path__ = list(found.submodule_search_locations)
    sys.modules[name] = package
    return Path(package.__path__[0])


def without_cuda(source: str) -> str:
    """The text of lightweight_gan.py for a CPU; ends the program where it is another version's."""
    for line, instead in CUDA_ONLY:
        if line not in source:
            raise SystemExit(f"lightweight-gan: has no line with {line}, another version than 1.2.1?")
        source = source.replace(line, instead)
    return source


class LightweightGan:
    def __init__(self, images: Path, work: Path, size: int, narrower: Mapping[str, int]) -> None:
        source = (bare_package("lightweight_gan") / "lightweight_gan.py").read_text()
        module: Any = types.ModuleType("lightweight_gan.lightweight_gan")
        exec(compile(without_cuda(source), "lightweight_gan.py", "exec"), module.__dict__)
        self.trainer = module.Trainer(
            base_dir=work,
            image_size=size,
            attn_res_layers=[32],  # this and the next two lines are the defaults of its command line
            disc_output_size=1,
            aug_types=["cutout", "translation"],
            use_aim=False,
            num_workers=0,  # the race counts threads, and decoding takes next to nothing
            num_image_tiles=3,  # of its own previews, the least it can do with
            **narrower,
        )
        self.trainer.set_data_src(str(images))

    def step(self) -> int:
        self.trainer.train()
        return int(self.trainer.batch_size * self.trainer.gradient_accumulate_every)

    @torch.no_grad()
    def draw(self, count: int) -> NDArray[np.uint8]:
        gan = self.trainer.GAN.eval()
        images: Tensor = self.trainer.generate_(gan.G, torch.randn(count, gan.latent_dim))
        return to_uint8(images * 2 - 1).numpy()


class _NoLog:
    """Takes what the networks of torch-mimicry report of a step."""

    def add_metric(self, *args: Any, **kwargs: Any) -> None:
        pass


class MimicrySngan:
    def __init__(self, images: Path, work: Path, size: int, narrower: Mapping[str, int]) -> None:
        bare_package("torch_mimicry")
        sngan: Any = importlib.import_module("torch_mimicry.nets.sngan")
        self.G = getattr(sngan, f"SNGANGenerator{size}")(ngf=narrower["width"])
        self.D = getattr(sngan, f"SNGANDiscriminator{size}")(ndf=narrower["width"])
        self.g_optimizer, self.d_optimizer = (
            torch.optim.Adam(network.parameters(), 2e-4, betas=(0.0, 0.9)) for network in (self.G, self.D)
        )
        self.batch, self.n_dis = narrower["batch_size"], narrower["n_dis"]
        self.reals = _batches(images, size, self.batch)

    def step(self) -> int:
        self.G.train()
        common = {"log_data": _NoLog(), "device": torch.device("cpu")}
        for _ in range(self.n_dis):
            real = next(self.reals), torch.zeros(self.batch)  # labels, which nobody looks at
            self.D.train_step(real_batch=real, netG=self.G, optD=self.d_optimizer, **common)
        self.G.train_step(real_batch=real, netD=self.D, optG=self.g_optimizer, **common)
        return self.batch

    @torch.no_grad()
    def draw(self, count: int) -> NDArray[np.uint8]:
        self.G.eval()
        images: Tensor = self.G.generate_images(count)
        return to_uint8(images).numpy()


def _batches(folder: Path, size: int, batch: int) -> Iterator[Tensor]:
    """Whole batches in [-1, 1], shuffled anew in every pass, out of memory."""
    images = open_images(str(folder), size)
    everything = torch.from_numpy(np.stack([images.image(index) for index in range(len(images))]))
    while True:
        for chosen in torch.randperm(len(everything)).split(batch):
            if len(chosen) == batch:
                yield to_float(everything[chosen])


KINDS: dict[str, Callable[[Path, Path, int, Mapping[str, int]], Rival]] = {
    "lightweight-gan": LightweightGan,
    "mimicry-sngan": MimicrySngan,
}


def save_samples(rival: Rival, folder: Path) -> None:
    """The same noise at every look, and training goes on as if nobody had looked."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        for start in range(0, SAMPLES, DRAWN_AT_ONCE):
            for number, image in enumerate(rival.draw(DRAWN_AT_ONCE), start):
                save_png(folder / f"{number:06d}.png", image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(PACKAGES))
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--moments", type=float, nargs="+", required=True)
    options = parser.parse_args()
    started, looking, nimg = psutil.Process().create_time(), 0.0, 0  # loading torch counts, too
    torch.manual_seed(SEED)
    narrower = NARROWER[options.name][options.size]
    rival = KINDS[options.name](options.images, options.out / "work", options.size, narrower)
    for number, moment in enumerate(options.moments, 1):
        before = nimg
        while (seconds := time.time() - started - looking) < moment or not nimg:
            nimg += rival.step()
        if nimg == before:  # the last step went on past this moment, too
            continue
        began = time.time()
        save_samples(rival, options.out / "samples" / str(number))
        with (options.out / "looks.jsonl").open("a") as file:
            file.write(json.dumps({"number": number, "seconds": seconds, "nimg": nimg}) + "\n")
        looking += time.time() - began


if __name__ == "__main__":
    main()
