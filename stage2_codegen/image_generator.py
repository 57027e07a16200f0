"""From seeds to pictures: noise, generator, decoder."""

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.errors import InputError, MismatchError, UsageError
from data.files.checkpoints import BEST, load_weights, put_weights
from data.files.packed import load_packed
from data.images import to_float, to_uint8
from data.seeds import IMAGE_CLASS, IMAGE_NOISE, IMAGE_Z, derive_seed
from data.sizes import Size, as_size
from stage1_autoencoder.networks import Autoencoder
from stage1_autoencoder.tiles import pictures_at_once
from stage2_codegen.codes import CodeScale
from stage2_codegen.description import check_generator
from stage2_codegen.picture_vectors import pooled
from stage2_codegen.rank_noise import recorded_noise, shared_noise
from stage2_codegen.variants import configured
from stage2_codegen.variants.conditional import ConditionalGenerator, build_generator
from stage2_codegen.variants.contract import CodeGenerator, Judged

type Seeds = Sequence[int]

NOISE_SEED = 0  # where no seed is given, noise besides z is that of the image of this one
MOST_NAMED = 20  # classes that a message names

type Describe = Callable[[NDArray[np.uint8]], Tensor]  # pictures (n, 3, H, W) -> vectors (n, length)


class ImageGenerator:
    """Draws codes with a trained generator and decodes them to full-resolution images."""

    def __init__(
        self,
        generator: CodeGenerator,
        scale: CodeScale,
        autoencoder: Autoencoder,
        image_size: Size,
        nimg: int | None = None,
        class_names: Sequence[str] = (),
        described: Mapping[str, Any] | None = None,
    ) -> None:
        self.generator, self.scale, self.autoencoder = generator, scale, autoencoder
        self.image_size = image_size  # pixels per side
        self.nimg = nimg  # samples seen in training; None while it continues
        self.class_names = class_names  # of a conditional generator, in the order of its classes
        self.described = described or {}  # how it was trained, as its weights say
        self.truncation = 1.0
        self._class: int | None = None  # the class of all images; None draws classes as frequently as in the data

    @classmethod
    def load(cls, run: str | Path, best: bool = False) -> Self:
        """Load the averaged generator of a run, with the decoder of its codes, onto a GPU if there is one.

        The run is a folder or a .zip of it. With `best` it is the generator at its best score, if the run was scored.
        Raises `InputError` without weights, `CorruptError` on damage, `MismatchError` for another kind of run.
        """
        folder = Path(run) / "weights"
        if Path(run).is_file():
            weights = load_packed(Path(run), best)
        elif best and not (folder / BEST).is_dir():
            raise InputError(f"{run}: no snapshot of it was scored", "leave out --best, or train with --score-kimg")
        else:
            weights = load_weights(folder / BEST if best else folder)
        config = weights.state
        if config.get("kind") != "generator":
            raise MismatchError(f"{run}: is not the run of a generator", "give the run folder of one")
        check_generator(weights, run)
        with torch.random.fork_rng(devices=[]):  # initial weights would move the caller's random numbers
            autoencoder = Autoencoder.from_weights(weights.tensors["autoencoder"], config["autoencoder"], run)
            channels, height, width = config["code_shape"]
            variant, model = configured(config["variant"], (channels, height, width), config["model"])
            generator = build_generator(variant, (channels, height, width), model)
        if autoencoder.fingerprint != config["autoencoder_fingerprint"]:
            raise MismatchError(f"{run}: holds another autoencoder than the one of its codes", "train again")
        put_weights(generator, weights.tensors["generator"], run)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        generator.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
        autoencoder.to(device).to(memory_format=torch.channels_last)
        scale, names = CodeScale.from_json(config["scale"]), config.get("classes", [])
        return cls(generator, scale, autoencoder, as_size(config["image_size"]), config["nimg"], names, config)

    @property
    def device(self) -> torch.device:
        """The device of the generator's weights."""
        return next(self.generator.parameters()).device

    def drawing(self, class_name: str | None = None, truncation: float = 1.0) -> Self:
        """Return the same generator, limited to images of one class, or with truncated noise.

        A `truncation` below 1 makes images more typical and less varied, down to a single image at 0. Raises
        `UsageError` for a class that the generator does not know.
        """
        drawing = copy.copy(self)
        drawing.truncation = truncation
        if class_name is not None:
            drawing._class = self._class_number(class_name)
        return drawing

    def like(self, image_u8: NDArray[np.uint8], describe: Describe | None = None) -> Self:
        """Return the same generator, told by one picture (3, H, W) of its image size what to draw (LRM GAN, figure 3).

        `describe` makes the vector of a picture as those of the training were made, by default as where none was given.
        Raises `UsageError` where the generator does not take such a vector.
        """
        liking = copy.copy(self)
        vectors = (describe or self._pooled)(image_u8[None])
        liking.generator = self.generator.like(vectors[0].to(self.device))
        return liking

    @torch.inference_mode()
    def _pooled(self, images_u8: NDArray[np.uint8]) -> Tensor:
        images = to_float(torch.from_numpy(images_u8).to(self.autoencoder.device))
        return pooled(self.autoencoder.encode(images))

    def _class_number(self, name: str) -> int:
        if not self.class_names:
            fix = "leave it out, or train with --conditional"
            raise UsageError(f"--class {name}: this generator was trained without classes", fix)
        if name not in self.class_names:
            known = ", ".join(self.class_names[:MOST_NAMED]) + ", ..." * (len(self.class_names) > MOST_NAMED)
            raise UsageError(f"--class {name}: is not a class of this generator", f"choose one of {known}")
        return list(self.class_names).index(name)

    def noise(self, seeds: Seeds) -> Tensor:
        """Draw z (n, z_dim), whose row i is a function of seeds[i], of the class and of the truncation."""
        generator, rows = self.generator, []
        for seed in seeds:
            source = torch.Generator().manual_seed(derive_seed(seed, IMAGE_Z))
            rows.append(torch.randn(generator.noise_dim, generator=source))
        noise, classes = torch.stack(rows).to(self.device), None
        if isinstance(generator, ConditionalGenerator):
            chances = torch.tensor([derive_seed(seed, IMAGE_CLASS) / 2**63 for seed in seeds])
            classes = generator.frequent(chances.to(noise.device))
            classes = classes if self._class is None else torch.full_like(classes, self._class)
        return generator.truncated(generator.of_classes(noise, classes), self.truncation)

    def __call__(self, seeds: Seeds) -> NDArray[np.uint8]:
        """Draw the images of these seeds, uint8 (n, 3, H, W)."""
        # One at a time: for batches of other sizes the libraries choose other kernels, and the last bit of a picture
        # would depend on the others.
        return np.concatenate([self._decode(self._draw(self.generator, seed, self.noise([seed]))) for seed in seeds])

    def codes(self, z: Tensor, seed: int) -> Tensor:
        """Draw codes (n, C, S, S) of z (n, z_dim), all with the noise besides z that the image of `seed` has."""
        with shared_noise():
            return self._draw(self.generator, seed, z)

    def judged(self, seed: int) -> tuple[NDArray[np.uint8], Judged]:
        """Draw the image of a seed (3, H, W), with what a critic judges of it."""
        judged = self._draw(self.generator.judged, seed, self.noise([seed]))
        return self._decode(judged[-1] if isinstance(judged, tuple) else judged)[0], judged

    def other_noise(self, seed: int) -> list[Tensor]:
        """Draw the noise besides z that the image of `seed` has, (1, ...) each, in the order of its use."""
        with recorded_noise() as drawn:
            self._draw(self.generator, seed, self.noise([seed]))
        return drawn

    def between(self, points: Iterable[tuple[Tensor, Tensor, float]], seed: int) -> NDArray[np.uint8]:
        """Draw images, uint8 (n, 3, H, W), on the way from one z (1, z_dim) to another, each at its share of the way.

        All have the noise besides z that the image of `seed` has. They are decoded together.
        """
        codes = [
            self._draw(self.generator.between, seed, start, stop, torch.tensor([share]))
            for start, stop, share in points
        ]
        return self._decode(torch.cat(codes))

    @property
    def gates(self) -> list[int]:
        """Sides of the maps whose style `mix` can replace."""
        return list(self._style(NOISE_SEED, self.noise([NOISE_SEED])))

    def mix(
        self, contents: Seeds | Tensor, styles: Seeds | Tensor, gates: Collection[int] | None = None
    ) -> NDArray[np.uint8]:
        """Draw each content in each style (FastGAN, figure 7): (styles, contents, 3, H, W).

        Both are seeds, or z (n, z_dim) of pictures that were found in the generator. The maps of sides `gates`, by
        default of all gates, are those of the style. Raises `UsageError` where the generator does not have such gates.
        """
        known = self.gates
        chosen = known if gates is None else gates
        if not known:
            raise UsageError("this generator has no gates for mixing styles", "train the variant sle or projected")
        if not chosen or not set(chosen) <= set(known):
            what = f"--gates {','.join(map(str, chosen))}: are not gates of this generator"
            raise UsageError(what, f"choose from {', '.join(map(str, known))}")
        rows = []
        for noise_seed, z in self._places(styles):
            style = {side: maps for side, maps in self._style(noise_seed, z).items() if side in chosen}
            row = [self._draw(self.generator.styled, seed, content, style) for seed, content in self._places(contents)]
            rows.append([self._decode(codes)[0] for codes in row])
        return np.array(rows)

    def _places(self, given: Seeds | Tensor) -> list[tuple[int, Tensor]]:
        """The seed of the noise besides z, and z (1, z_dim), of each picture."""
        if isinstance(given, Tensor):
            return [(NOISE_SEED, z) for z in given.to(self.device).split(1)]
        return [(seed, self.noise([seed])) for seed in given]

    def _style(self, noise_seed: int, z: Tensor) -> dict[int, Tensor]:
        return self._draw(self.generator.style, noise_seed, z)

    @torch.inference_mode()
    def _draw[**P, T](self, draw: Callable[P, T], seed: int, *inputs: P.args, **options: P.kwargs) -> T:
        """Call a method of the generator, whose noise besides z then is a function of the seed."""
        device = self.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):  # the default would wake every GPU
            torch.manual_seed(derive_seed(seed, IMAGE_NOISE))
            return draw(*inputs, **options)

    @torch.inference_mode()
    def _decode(self, codes: Tensor) -> NDArray[np.uint8]:
        """Together, or one after another where the images are so large that they are decoded in tiles."""
        images = [
            to_uint8(self.autoencoder.decode(self.scale.to_latents(part))).cpu()
            for part in codes.split(pictures_at_once(self.image_size, len(codes)))
        ]
        return torch.cat(images).numpy()
