"""From seeds to pictures: noise, generator, decoder."""

import copy
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.errors import InputError, MismatchError, UsageError
from data.files.checkpoints import BEST, load_weights, put_weights
from data.images import to_uint8
from data.seeds import IMAGE_CLASS, IMAGE_NOISE, IMAGE_Z, derive_seed
from stage1_autoencoder.networks import Autoencoder
from stage2_codegen.codes import CodeScale
from stage2_codegen.rank_noise import shared_noise
from stage2_codegen.variants import configured
from stage2_codegen.variants.conditional import ConditionalGenerator, build_generator
from stage2_codegen.variants.contract import CodeGenerator

MOST_NAMED = 20  # classes in a message


class ImageGenerator:
    """Draws codes with a trained generator and decodes them to full-resolution images."""

    def __init__(
        self,
        generator: CodeGenerator,
        scale: CodeScale,
        autoencoder: Autoencoder,
        image_size: int,
        nimg: int | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        self.generator, self.scale, self.autoencoder = generator, scale, autoencoder
        self.image_size = image_size  # pixels a side
        self.nimg = nimg  # that it was trained on; None while it still is
        self.class_names = class_names  # of a conditional generator, in the order of its classes
        self.truncation = 1.0
        self._class: int | None = None  # that all images are of; None draws them as frequently as in the data

    @classmethod
    def load(cls, run: str | Path, best: bool = False) -> Self:
        """The averaged generator of a run, with the decoder its codes belong to; on a GPU if there is one.

        `best`: as it was when it scored best, if it was trained with `--score-kimg`. Raises `InputError` without
        weights, `CorruptError` on damage, `MismatchError` for another kind of run.
        """
        folder = Path(run) / "weights"
        if best and not (folder / BEST).is_dir():
            raise InputError(f"{run}: no snapshot of it was scored", "leave out --best, or train with --score-kimg")
        weights = load_weights(folder / BEST if best else folder)
        config = weights.state
        if config.get("kind") != "generator":
            raise MismatchError(f"{run}: is not the run of a generator", "give the run folder of one")
        with torch.random.fork_rng(devices=[]):  # initial weights would move the caller's random numbers
            autoencoder = Autoencoder.from_weights(weights.tensors["autoencoder"], config["autoencoder"], run)
            channels, height, width = config["code_shape"]
            variant, model = configured(config["variant"], (channels, height, width), config["model"])
            generator = build_generator(variant, (channels, height, width), model)
        if autoencoder.fingerprint != config["autoencoder_fingerprint"]:
            raise MismatchError(f"{run}: holds another autoencoder than its codes were made with", "train again")
        put_weights(generator, weights.tensors["generator"], run)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        generator.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
        autoencoder.to(device).to(memory_format=torch.channels_last)
        scale, names = CodeScale.from_json(config["scale"]), config.get("classes", [])
        return cls(generator, scale, autoencoder, config["image_size"], config["nimg"], names)

    def drawing(self, class_name: str | None = None, truncation: float = 1.0) -> Self:
        """The same generator with images of one class alone, or with truncated noise.

        A `truncation` below 1 makes images more usual and more alike, down to one image at 0. Raises `UsageError` for a
        class that it does not know.
        """
        drawing = copy.copy(self)
        drawing.truncation = truncation
        if class_name is not None:
            drawing._class = self._class_number(class_name)
        return drawing

    def _class_number(self, name: str) -> int:
        if not self.class_names:
            fix = "leave it out, or train with --conditional"
            raise UsageError(f"--class {name}: this generator was trained without classes", fix)
        if name not in self.class_names:
            known = ", ".join(self.class_names[:MOST_NAMED]) + ", ..." * (len(self.class_names) > MOST_NAMED)
            raise UsageError(f"--class {name}: is not a class of this generator", f"choose one of {known}")
        return list(self.class_names).index(name)

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """z (n, z_dim), row i a function of seeds[i], of the class and of the truncation."""
        generator, rows = self.generator, []
        for seed in seeds:
            source = torch.Generator().manual_seed(derive_seed(seed, IMAGE_Z))
            rows.append(torch.randn(generator.noise_dim, generator=source))
        noise, classes = torch.stack(rows).to(next(generator.parameters()).device), None
        if isinstance(generator, ConditionalGenerator):
            chances = torch.tensor([derive_seed(seed, IMAGE_CLASS) / 2**63 for seed in seeds])
            classes = generator.frequent(chances.to(noise.device))
            classes = classes if self._class is None else torch.full_like(classes, self._class)
        return generator.truncated(generator.of_classes(noise, classes), self.truncation)

    def __call__(self, seeds: Sequence[int]) -> NDArray[np.uint8]:
        """Images (n, 3, H, W).

        They are made one at a time: in a batch, the libraries choose other kernels for other sizes, and the last bit
        of a picture would depend on its neighbours.
        """
        return np.concatenate([self._decode(self._draw(self.generator, seed, self.noise([seed]))) for seed in seeds])

    def codes(self, z: Tensor, seed: int) -> Tensor:
        """Codes (n, C, S, S) of z (n, z_dim), all with the noise besides z that the image of `seed` has."""
        with shared_noise():
            return self._draw(self.generator, seed, z)

    def between(self, points: Iterable[tuple[Tensor, Tensor, float]], seed: int) -> NDArray[np.uint8]:
        """Images (n, 3, H, W) on the way from one z (1, z_dim) to another, each at its share of the way.

        All have the noise besides z that the image of `seed` has; they are decoded together.
        """
        codes = [
            self._draw(self.generator.between, seed, start, stop, torch.tensor([share]))
            for start, stop, share in points
        ]
        return self._decode(torch.cat(codes))

    @property
    def gates(self) -> list[int]:
        """Sides of the maps whose style `mix` can take over."""
        return list(self._style(0))

    def mix(
        self, contents: Sequence[int], styles: Sequence[int], gates: Collection[int] | None = None
    ) -> NDArray[np.uint8]:
        """Images (styles, contents, 3, H, W): the content of one seed in the style of another (FastGAN, figure 7).

        The maps of sides `gates`, all by default, are those of the style; raises `UsageError` where there are none.
        """
        known = self.gates
        chosen = known if gates is None else gates
        if not known:
            raise UsageError("this generator has no gates to mix styles by", "train the variant sle or projected")
        if not chosen or not set(chosen) <= set(known):
            what = f"--gates {','.join(map(str, chosen))}: are not gates of this generator"
            raise UsageError(what, f"choose from {', '.join(map(str, known))}")
        rows = []
        for style_seed in styles:
            style = {side: maps for side, maps in self._style(style_seed).items() if side in chosen}
            row = [self._draw(self.generator.styled, seed, self.noise([seed]), style) for seed in contents]
            rows.append([self._decode(codes)[0] for codes in row])
        return np.array(rows)

    def _style(self, seed: int) -> dict[int, Tensor]:
        return self._draw(self.generator.style, seed, self.noise([seed]))

    @torch.inference_mode()
    def _draw[**P, T](self, draw: Callable[P, T], seed: int, *inputs: P.args, **options: P.kwargs) -> T:
        """What a method of the generator gives, with the noise it draws besides z a function of the seed."""
        device = next(self.generator.parameters()).device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):  # else it wakes every GPU there is
            torch.manual_seed(derive_seed(seed, IMAGE_NOISE))
            return draw(*inputs, **options)

    @torch.inference_mode()
    def _decode(self, codes: Tensor) -> NDArray[np.uint8]:
        return to_uint8(self.autoencoder.decode(self.scale.to_latents(codes))).cpu().numpy()
