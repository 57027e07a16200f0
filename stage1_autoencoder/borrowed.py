"""Autoencoders of the library diffusers in place of our own: TAESD, the KL autoencoders of Stable Diffusion, and DC-AE.

`diffusers:FOLDER` names a folder on this machine with config.json and weights as safetensors, as these are published.
Nothing is downloaded, and no code of the folder is run.
"""

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from data.errors import CorruptError, InputError, MismatchError, UsageError, one_line
from data.files.atomic import read_json
from stage1_autoencoder.bounds import CODE_DEVIATION, unbounded

PREFIX = "diffusers:"
KINDS = ("AutoencoderTiny", "AutoencoderKL", "AutoencoderDC")
_SHAPES = ("encoder_block_out_channels", "block_out_channels")  # what the depth of a network is read from


class Borrowed(NamedTuple):
    """The two networks of an autoencoder, and what others need to know of them."""

    encoder: nn.Module
    decoder: nn.Module
    factor: int
    code_channels: int
    reach: int | None  # latents on each side that a latent or its pixels depend on; None where that is all of them


def is_borrowed(name: str | Path) -> bool:
    """Return whether this has the form of a name."""
    return str(name).startswith(PREFIX)


def resolved(name: str | Path) -> str:
    """The name with its folder as an absolute path."""
    return f"{PREFIX}{Path(str(name).removeprefix(PREFIX)).resolve()}"


def read(name: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description of the autoencoder in a folder, and its weights by their names in `Borrowed`.

    Raises `InputError` for a folder without one, `MismatchError` for one of another kind, `CorruptError` on damage, and
    `UsageError` where diffusers is not installed.
    """
    folder = Path(str(name).removeprefix(PREFIX))
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        fix = "give a folder with config.json and a .safetensors file, as published for diffusers"
        raise InputError(f"{folder}: holds no autoencoder of diffusers", fix)
    config = read_json(folder / "config.json")
    kind = config.get("_class_name")
    if kind not in KINDS:
        raise MismatchError(f"{folder}: is of the kind {kind}", f"give one of {', '.join(KINDS)}")
    if "quantization_config" in config:
        raise MismatchError(f"{folder}: its weights are quantised", "give the weights before quantisation")
    description = {"kind": kind, **{name: value for name, value in config.items() if not name.startswith("_")}}
    model = _class(kind)
    try:
        network = model.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False, torch_dtype=torch.float32
        )
    except Exception as error:  # the library raises nearly any class
        what = f"{folder}: its weights cannot be loaded ({one_line(error)})"
        raise CorruptError(what, "copy or download the folder again") from error
    borrowed = _wrapped(network, description)
    tensors = {f"encoder.{name}": tensor for name, tensor in borrowed.encoder.state_dict().items()}
    return description, tensors | {f"decoder.{name}": tensor for name, tensor in borrowed.decoder.state_dict().items()}


def build(description: Mapping[str, Any]) -> Borrowed:
    """Build the networks of a description, with random weights; raises `MismatchError` for one that describes none."""
    kind = description.get("kind")
    if kind not in KINDS:
        raise MismatchError(f"{kind}: is no autoencoder of diffusers", f"use one of {', '.join(KINDS)}")
    try:
        network = _class(kind)(**_known(kind, description))
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
        what = f"{kind}: cannot be built as it is described ({one_line(error)})"
        raise MismatchError(what, "use the version of diffusers that it was made with") from error
    return _wrapped(network, description)


def _class(kind: str) -> Any:
    try:
        import diffusers  # late: an optional dependency, slow to load
    except ImportError as error:
        fix = "install the extra: `pip install codegan[diffusers]`"
        raise UsageError(f"{PREFIX}: needs the package {error.name}", fix) from error
    diffusers.logging.set_verbosity_error()  # it warns of what its own files say
    return getattr(diffusers, kind)


def _known(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the network, without what else its file says."""
    names = inspect.signature(_class(kind).__init__).parameters
    return {name: value for name, value in config.items() if name in names and name != "self"}


def _wrapped(network: Any, description: Mapping[str, Any]) -> Borrowed:
    config = network.config
    if (config.in_channels, config.get("out_channels", 3)) != (3, 3):
        raise MismatchError(f"{description['kind']}: is not one of colour pictures", "give one of 3 channels")
    shift = torch.tensor(config.get("latents_mean") or config.get("shift_factor") or 0.0)
    deviation = torch.tensor(config.get("latents_std") or 1.0)
    scale = CODE_DEVIATION * config.scaling_factor / deviation
    blocks = next(config[name] for name in _SHAPES if name in config)
    return Borrowed(
        _Encoder(network, config.latent_channels, shift, scale),
        _Decoder(network, shift, scale),
        2 ** (len(blocks) - 1),
        config.latent_channels,
        _reach(config) if description["kind"] == "AutoencoderTiny" else None,
    )


def _reach(config: Any) -> int:
    """How far the convolutions of TAESD see: three in each block, and one before the blocks, at every scale."""
    depths = (config.num_encoder_blocks[::-1], config.num_decoder_blocks)
    return 2 + max(math.ceil(sum((1 + 3 * count) / 2**level for level, count in enumerate(depth))) for depth in depths)


class _Scaled(nn.Module):
    """What encoder and decoder share: codes of deviation 1 by the published shift and scale, bent into [-1, 1]."""

    def __init__(self, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift.view(-1, 1, 1), persistent=False)
        self.register_buffer("scale", scale.view(-1, 1, 1), persistent=False)

    shift: Tensor
    scale: Tensor


class _Encoder(_Scaled):
    """(N, 3, H, W) in [-1, 1] -> (N, C, H/f, W/f) in [-1, 1]."""

    def __init__(self, network: Any, channels: int, shift: Tensor, scale: Tensor) -> None:
        super().__init__(shift, scale)
        self.network, self.channels = network.encoder, channels
        self.last = getattr(network, "quant_conv", None) or nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        # A KL autoencoder gives the mean of each latent and then its variance, which is left out.
        codes = self.last(self.network(images))[:, : self.channels]
        return torch.tanh((codes - self.shift) * self.scale)


class _Decoder(_Scaled):
    """(N, C, h, w) in [-1, 1] -> (N, 3, f h, f w) in [-1, 1]."""

    def __init__(self, network: Any, shift: Tensor, scale: Tensor) -> None:
        super().__init__(shift, scale)
        self.first = getattr(network, "post_quant_conv", None) or nn.Identity()
        self.network = network.decoder

    def forward(self, latents: Tensor) -> Tensor:
        codes = unbounded(latents) / self.scale + self.shift
        return self.network(self.first(codes)).clamp(-1, 1)
