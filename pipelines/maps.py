"""Maps of a trained generator and its critic: what any of their modules makes of the pictures that the run draws.

Under each picture are, row by row,

    the first principal component of the module's maps, over all positions of all pictures (GIU-GANs, section 1, figures
    1 and 2),
    the mean absolute value of the maps over channels, as a heat map (GCA, figure 5), and
    of a module that relates positions, how much each of three points draws on all others (LRM GAN, figure 1).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from data.advice import Done
from data.errors import CodeganError, InputError, UsageError
from data.files.checkpoints import load_newest, load_weights, put_weights
from data.images import image_grid, save_png, to_array, to_image
from data.sizes import Size, height_width
from pipelines.sample import load_generator
from stage2_codegen.frozen.context import Context
from stage2_codegen.image_generator import ImageGenerator
from stage2_codegen.losses import Judge
from stage2_codegen.modules import GraphConvolution, NonLocal, SelfAttention, SpatialLongRange
from stage2_codegen.modules.self_attention import positions, relations
from stage2_codegen.variants import configured

SEEDS = range(8)  # the columns of a sheet
TILE = 128  # pixels of a tile's longer side
POINTS = {"the centre": 1 / 2, "the upper left": 1 / 4, "the lower right": 3 / 4}  # shares of height and width
POINT_COLOUR = (0, 96, 255)  # not one of a heat map's
RELATING = (SelfAttention, NonLocal, SpatialLongRange, GraphConvolution)

type Picture = NDArray[np.uint8]  # (3, H, W)


class Seen(NamedTuple):
    """What a module read and wrote in one pass, both (1, C, H, W) with their own C, H and W."""

    read: Tensor
    written: Tensor


class Networks(NamedTuple):
    """The averaged generator of a run, and its critic or the reason why there is none."""

    pipe: ImageGenerator
    critic: nn.Module | CodeganError

    @classmethod
    def load(cls, run: Path) -> "Networks":
        """Load both; raises what `load_generator` raises."""
        pipe = load_generator(run)
        try:
            return cls(pipe, load_critic(run, pipe))
        except CodeganError as error:
            return cls(pipe, error)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """All modules by their names, which begin with G or critic."""
        parts: dict[str, nn.Module] = {"G": self.pipe.generator.unconditional}
        if isinstance(self.critic, nn.Module):
            parts["critic"] = self.critic
        return {
            f"{part}.{name}": module
            for part, network in parts.items()
            for name, module in network.named_modules()
            if name and "parametrizations" not in name  # those make weights, not maps
        }

    def draw(self, seed: int) -> Picture:
        """Draw the picture of a seed and let the critic judge it, so that hooks of both see their maps."""
        picture, judged = self.pipe.judged(seed)
        if isinstance(self.critic, nn.Module):
            with torch.inference_mode():
                Judge(self.critic, self.pipe.generator.classes_of(self.pipe.noise([seed])))(judged)
        return picture


def load_critic(run: Path, pipe: ImageGenerator) -> nn.Module:
    """Load the critic of a run from its newest checkpoint, for judging what `pipe`, its generator, draws.

    Raises `InputError` without a checkpoint, and what the frozen networks of its variant raise.
    """
    checkpoint = load_newest(run / "checkpoints")
    if checkpoint is None:
        raise InputError(f"{run}: there is no checkpoint, which holds the critic", "choose a module of G")
    described = load_weights(run / "weights").state
    channels, height, width = described["code_shape"]
    variant, model = configured(described["variant"], (channels, height, width), described["model"])
    if variant.uses_context:
        # One that sees decoded pictures is fitted to samples here, so that no store is needed.
        codes = torch.cat([pipe.codes(pipe.noise([seed]), seed) for seed in SEEDS])
        context = Context(pipe.autoencoder, pipe.scale, codes.std((0, 2, 3)), codes, variant.frozen(model))
        variant = variant.given(context.to(codes.device))
    critic = variant.Critic((channels, height, width), model)
    put_weights(critic, checkpoint.tensors["critic"], run)
    return critic.eval().requires_grad_(False).to(next(pipe.generator.parameters()).device)


@contextmanager
def watched(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Seen]]]:
    """Inside, gather by name what these modules see in each of their passes, if it is maps of more than one place."""
    seen: dict[str, list[Seen]] = {}

    def watch(name: str, module: nn.Module) -> Any:
        def remember(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            is_map = isinstance(output, Tensor) and output.dim() == 4 and output[0, 0].numel() > 1
            if is_map and isinstance(inputs[0], Tensor):
                # Copies, since the next module may work in place.
                seen.setdefault(name, []).append(Seen(inputs[0].float().clone(), output.float().clone()))

        return module.register_forward_hook(remember)

    hooks = [watch(name, module) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def maps(run: Path, module: str | None, out: Path | None) -> Done:
    """Print the modules of a run or, for one of them, write its sheet into `out`."""
    networks = Networks.load(run)
    if module is None:
        print(table(run, networks))
        return Done([], ["codegan", "inspect", str(run), "--module", "NAME", "--out", "maps"])
    if out is None:
        raise UsageError("--module: there is no folder for the maps", "add --out FOLDER")
    known = networks.modules
    if module not in known:
        more = f" ({networks.critic.what})" if isinstance(networks.critic, CodeganError) else ""
        raise UsageError(f"--module {module}: is not in this run{more}", f"see codegan inspect {run}")
    with watched({module: known[module]}) as found:
        pictures = [networks.draw(seed) for seed in SEEDS]
    if module not in found:
        raise UsageError(f"--module {module}: makes no maps", f"choose one that codegan inspect {run} lists")
    rows, told = sheet(pictures, known[module], found[module][-len(pictures) :])
    save_png(out / f"{module}.png", image_grid(rows, columns=len(pictures)))
    print("\n".join([f"{module}, from top to bottom:", *(f"  {line}" for line in told)]))
    return Done([out / f"{module}.png"])


def table(run: Path, networks: Networks) -> str:
    """The modules that make maps, in the order of the pass."""
    known = networks.modules
    with watched(known) as found:
        networks.draw(SEEDS[0])
    width = max(map(len, found), default=0)
    lines = [f"{run}: modules that make maps, and their channels x height x width"]
    for name, seen in found.items():
        shape = " x ".join(map(str, seen[-1].written.shape[1:]))
        lines.append(f"  {name:<{width}}  {shape:>16}  {type(known[name]).__name__.removeprefix('Parametrized')}")
    if isinstance(networks.critic, CodeganError):
        lines.append(f"  no critic: {networks.critic.what}")
    return "\n".join(lines)


def sheet(pictures: Sequence[Picture], module: nn.Module, seen: Sequence[Seen]) -> tuple[list[Picture], list[str]]:
    """The tiles of a sheet, row by row with one for each picture, and what each row shows."""
    size = _tile_size((pictures[0].shape[1], pictures[0].shape[2]))
    written = torch.cat([each.written for each in seen])
    components, share = principal_component(written)
    tiles = [_enlarged(picture, size) for picture in pictures]
    told = [f"the pictures of seeds {SEEDS[0]} to {SEEDS[-1]}"]
    tiles += [_enlarged(np.stack([grey] * 3), size) for grey in components]
    told.append(f"first principal component of {written.shape[1]} channels, {share:.0%} of their variance")
    tiles += [_enlarged(heat(each), size) for each in written.abs().mean(1).cpu().numpy()]
    told.append("mean absolute value over channels: black, red, yellow, white")
    if isinstance(module, RELATING):
        for name, place in POINTS.items():
            tiles += [_enlarged(related(module, each.read, place), size) for each in seen]
            told.append(f"how much {name}, in blue, draws on each place: black, red, yellow, white")
    return tiles, told


def principal_component(written: Tensor) -> tuple[Picture, float]:
    """Maps (N, C, H, W) along their first principal component, grey (N, H, W), and its share of their variance.

    Every position of every map is a sample, so a grey means the same in all of them.
    """
    count, channels, height, width = written.shape
    samples = written.double().movedim(1, -1).reshape(-1, channels)
    samples = samples - samples.mean(0)
    values, vectors = torch.linalg.eigh(samples.T @ samples / len(samples))
    first = vectors[:, -1]
    first = first * first[first.abs().argmax()].sign()  # so that all machines agree
    along = samples @ first
    low, high = (along.quantile(share) if len(along) < 2**24 else along.min() for share in (0.01, 0.99))
    grey = ((along - low) / (high - low).clamp(min=1e-12)).clamp(0, 1) * 255
    share = float(values[-1] / values.sum().clamp(min=1e-30))
    return grey.round().byte().view(count, height, width).cpu().numpy(), share


def heat(values: NDArray[np.floating[Any]]) -> Picture:
    """(H, W) -> (3, H, W), from black at 0 over red and yellow to white at the largest."""
    steps = 3 * values / max(float(values.max()), 1e-12) - np.arange(3)[:, None, None]
    picture: Picture = (steps.clip(0, 1) * 255).round().astype(np.uint8)
    return picture


@torch.inference_mode()
def related(module: nn.Module, read: Tensor, place: float) -> Picture:
    """How much a point of maps (1, C, H, W) draws on each position, as a heat map in which the point is blue."""
    height, width = read.shape[2:]
    row, column = int(place * height), int(place * width)
    asking, asked = (module.get_submodule(name) for name in ("query", "key"))
    if isinstance(module, GraphConvolution):  # its keys ask
        asking, asked = asked, asking
    point = positions(asking(read))[..., [row * width + column]]
    drawn = relations(point, positions(asked(read)))[0, 0].view(height, width)
    picture = heat(drawn.cpu().numpy())
    picture[:, row, column] = POINT_COLOUR
    return picture


def _tile_size(shape: Size) -> Size:
    height, width = height_width(shape)
    return round(TILE * height / max(height, width)), round(TILE * width / max(height, width))


def _enlarged(picture: Picture, size: Size) -> Picture:
    """With sharp cells where a map is smaller than a tile."""
    height, width = height_width(size)
    kind = Image.Resampling.NEAREST if picture.shape[1] < height else Image.Resampling.BOX
    return to_array(to_image(picture).resize((width, height), kind))
