"""The flags of the verbs that are not trainings and not `score`; torch is not needed to read them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from data.errors import UsageError
from data.flags import (
    ClassFlag,
    Data,
    Hosts,
    LocationArg,
    OptionalCount,
    OptionalPath,
    OptionalText,
    PictureFormat,
    RunArg,
)
from data.limits import Count, Limit, Limited, Natural, Positive, Weight
from stage2_codegen.configs.base import VariantConfig
from stage2_codegen.configs.choices import FeatureName
from stage2_codegen.configs.flags import PrecisionFlag
from stage2_codegen.configs.registry import SIDES
from stage2_codegen.configs.train import TrainConfig


@dataclass(frozen=True, kw_only=True)
class DemoConfig(Limited):
    """Both stages on procedural scenes, then samples, scores and a report; needs no input."""

    out: Path = Path("runs/demo")
    """Folder for everything; the same command goes on where it stopped."""
    minutes: Positive = 4.0
    """How much to train, in minutes of a 2-core CPU; the amount of work is fixed, so results do not depend on speed."""
    seed: Natural = 0
    """Decides weights, data order and noise."""


@dataclass(frozen=True, kw_only=True)
class InspectConfig(Limited):
    """Show what is in a data set: counts, sizes, labels, and which files cannot be used and why.

    Of the run of a generator, show the modules of its networks, and with --module what one of them makes of pictures.
    """

    data: tyro.conf.Positional[Data]
    """A folder, a .zip, .tar shards, or scenes:N; or the run folder of `codegan train`."""
    out: OptionalPath = None
    """Folder for contact.png, skipped.jsonl and summary.json; without it they are only described. For MODULE.png with
    --module."""
    module: OptionalText = None
    """Of a run, the module whose maps are drawn, by a name from its list: their first principal component, a heat map
    and, of attention, long-range modules and graph convolution, what three points draw on."""
    size: tuple[Count, ...] = (128, 256, 512, 1024)
    """Sides to count images by, and to measure reconstructions at, pixels."""
    autoencoder: OptionalPath = None
    """Run folder of `codegan train-ae`, or default: also measure how well it reconstructs these images, and say whether
    fine-tuning is worth it."""
    allow_host: Hosts = ()
    """Web servers that DATA, and their redirects, may be read from."""


@dataclass(frozen=True, kw_only=True)
class MetadataConfig(Limited):
    """Describe every image of a store by a vector of VGG-16, for generators that are given such vectors."""

    store: LocationArg
    """A store made by `codegan encode`."""
    weights: Path
    """Weights of torchvision's vgg16: a .pth or .safetensors file of its state dict."""
    data: Data = ()
    """The images the store was made of, where they have moved since; its own record when left out."""
    allow_host: Hosts = ()
    """Web servers that DATA, and their redirects, may be read from."""
    out: OptionalPath = None
    """Folder for the vectors. Default: STORE-metadata."""
    batch_size: Count = 16
    """Images in a forward pass."""


@dataclass(frozen=True, kw_only=True)
class PlanConfig[Model: VariantConfig](TrainConfig[Model]):
    """Measure what `codegan train` with the same flags would take; writes nothing."""

    out: Path = Path("runs/new")
    """Run folder for the command that is printed at the end."""
    precision: PrecisionFlag = None
    """Measure this one. Left out, both are measured where the hardware has bf16, and the faster is recommended."""


@dataclass(frozen=True, kw_only=True)
class ModelsConfig(Limited):
    """Print parameters and FLOPs per image of every variant at every code size."""

    channels: Count = 16
    """Channels of the codes; 3 for the same networks on pixels."""
    sizes: tuple[Count, ...] = SIDES
    """Sides of the codes; image side / factor."""


@dataclass(frozen=True, kw_only=True)
class DrawnConfig(Limited):
    """Fields of every verb that draws from a trained generator."""

    run: RunArg
    """Run folder of `codegan train`, or a .zip of it; such a file on a web server, as in
    https://HOST/RUN.zip#sha256=...; or a repository of the Hugging Face hub, as in hf://USER/NAME."""
    best: bool = False
    """Use the weights that scored best (`train --score-kimg`) instead of the newest."""
    class_name: ClassFlag = None
    """Draw this class alone, of a generator trained with --conditional."""
    truncation: Weight = 1.0
    """Scale of the noise: below 1, pictures are more usual and more alike, down to one picture at 0."""
    allow_host: Hosts = ()
    """Web servers that what is named may be read from, and their redirects."""


@dataclass(frozen=True, kw_only=True)
class SampleConfig(DrawnConfig):
    """Draw full-resolution images from a trained run."""

    out: Path
    """Folder for 000000.png ... and grid.png. What an earlier `sample` drew there is replaced, nothing else. For large
    numbers, the name of a .tar of pictures, or of a .zarr array."""
    format: PictureFormat = "png"
    """Kind of the files; jpeg and webp are of quality 95."""
    num: Count = 64
    """How many images."""
    seed: Natural = 0
    """Seed of the first image; image i has seed + i and depends on nothing else."""
    seeds: str = ""
    """Seeds of the images, as in 3,7,12-20, instead of --num and --seed."""
    like: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(optional)")] = None
    """A picture that tells a generator of lrm what to draw in all images, in place of pictures of its training."""
    vgg_weights: OptionalPath = None
    """Weights of torchvision's vgg16, which describes that picture where the run was given --model.metadata."""
    batch_size: Count = 16
    """Images drawn between two writes; does not change them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vgg_weights and not self.like:
            raise UsageError("--vgg-weights: there is no picture to describe", "add --like FILE, or leave it out")


@dataclass(frozen=True, kw_only=True)
class WalkConfig(DrawnConfig):
    """Make a film of the pictures between seeds."""

    out: Path
    """A .gif, .webp, .png (animated) or .mp4 file, or a folder for 000000.png ... An earlier film there is replaced."""
    seeds: str = ""
    """Seeds of the pictures on the way, in order, as in 3,7,12-20; 0-3 where left out."""
    projected: OptionalPath = None
    """Folder of `codegan project`, to walk between its pictures instead of seeds."""
    frames: Annotated[int, Limit(least=2)] = 60
    """Pictures of the whole film."""
    loop: bool = False
    """Return to the first seed, so that the film can go round."""
    fps: Annotated[float, Limit(least=0.1, most=100)] = 24.0
    """Pictures a second; has no meaning for a folder."""


@dataclass(frozen=True, kw_only=True)
class MixConfig(DrawnConfig):
    """Draw the contents of some pictures in the styles of others: one column a content, one row a style."""

    out: Path
    """The .png file of the grid."""
    contents: str = "0-5"
    """Seeds of the columns, as in 3,7,12-20, or a folder of `codegan project`, for its pictures."""
    styles: str = "6-9"
    """Seeds of the rows, or a folder of `codegan project`."""
    gates: str = ""
    """Sides of the maps that the style is taken from, as in 4,8; all by default. Small ones decide more."""


@dataclass(frozen=True, kw_only=True)
class ProjectConfig(DrawnConfig):
    """Find each picture in a trained generator: the z that draws what comes nearest to it."""

    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PICTURES")]
    """A folder, a .zip, .tar shards, or scenes:N; fitted to the generator's size."""
    out: Path
    """Folder for results.json, projected.safetensors (z) and 000000.png ... with each picture beside its projection;
    the same command goes on where it was stopped."""
    steps: Count = 1000
    """Steps of the optimisation."""
    refine_steps: Natural = 0
    """Further steps on the decoded pictures instead of their codes; each takes several times as long."""
    candidates: Count = 1000
    """Samples drawn first; the nearest one is where a picture's optimisation starts."""


@dataclass(frozen=True, kw_only=True)
class ExploreConfig(Limited):
    """Play with trained generators on a page of this machine: samples, walks, mixes, directions, your own pictures.

    Ctrl-C ends it, with exit code 0.
    """

    run: Annotated[
        tuple[RunArg, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)"),
    ]
    """Run folder of `codegan train`, or a .zip, an address or a name on the hub, as for `codegan sample`; the page lets
    you choose among several."""
    best: bool = False
    """Use the weights that scored best (`train --score-kimg`) instead of the newest."""
    port: Annotated[int, Limit(least=0, most=65535)] = 7860
    """Port of the page on 127.0.0.1; the next free one is taken where another program has it, and any with 0."""
    allow_host: Hosts = ()
    """Web servers that runs may be read from, and their redirects."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.run:
            raise UsageError("no run given", "name the run folder of a generator, as in codegan explore runs/photos")


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Limited):
    """Write a generator with its decoder for others: as one file that runs without codegan, or as a folder to share.

    The ONNX model is of opset 18. Its input `z` is float32 (N, z_dim) for any N, N(0, 1), followed in a conditional
    generator by the weights of the classes; its output `images` is uint8 (N, 3, H, W). Other noise that a generator
    draws is constant: that of `codegan sample --seed 0`. Nothing is written unless the file draws what torch draws.
    """

    run: RunArg
    """Run folder of `codegan train`, or a .zip, an address or a name on the hub, as for `codegan sample`."""
    onnx: OptionalPath = None
    """The .onnx file."""
    program: OptionalPath = None
    """A .pt2 file of the same for `torch.export.load`, which does not need the training code either."""
    hub: OptionalPath = None
    """A folder with the weights, samples and a model card (README.md) with the scores of the run; --run takes it, also
    as a .zip, and `codegan push` puts it on the Hugging Face hub. A card that is there is kept."""
    license: OptionalText = None
    """Licence for the card, by its name on the hub, as in cc-by-4.0."""
    best: bool = False
    """Use the weights that scored best (`train --score-kimg`) instead of the newest."""
    allow_host: Hosts = ()
    """Web servers that a run may be read from, and their redirects."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, path, suffix in (("onnx", self.onnx, ".onnx"), ("program", self.program, ".pt2")):
            if path and (path.suffix.lower() != suffix or path.is_dir()):
                raise UsageError(f"--{name} {path}: is not the name of a {suffix} file", f"give one ending in {suffix}")
        if not self.onnx and not self.program and not self.hub:
            raise UsageError("no file given", "name one, as in codegan export --run runs/photos --onnx photos.onnx")
        if self.license and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,60}", self.license):
            fix = "give its name on the hub, such as cc-by-4.0"
            raise UsageError(f"--license {self.license}: is not the name of a licence", fix)


@dataclass(frozen=True, kw_only=True)
class PushConfig(Limited):
    """Put a folder that `codegan export --hub` wrote on the Hugging Face hub, where `--run hf://USER/NAME` finds it.

    Log in once with `hf auth login`, or set HF_TOKEN.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """The folder: the weights, samples and README.md, which is yours to edit first."""
    to: Annotated[str, tyro.conf.arg(metavar="hf://USER/NAME")]
    """The repository; it is made where it does not exist."""
    public: bool = False
    """Make a new repository that everyone can see. By default it is private; one that exists stays as it is."""


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig(Limited):
    """Make a table of a paper again: train and score each of its rows, and put the published numbers beside those.

    PAPER is accel, giu, lrm, fastgan or gca. Without --table, its tables are listed with the data they need.
    """

    paper: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PAPER")]
    """The paper: accel, giu, lrm, fastgan or gca."""
    table: OptionalText = None
    """Number of the table; those that can be run are listed without it."""
    rows: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ROW", help_behavior_hint="(default: all)")] = ()
    """Rows to run, by the names in table.md; other rows keep what was measured earlier."""
    data: Data = ()
    """The data set: a folder, a .zip, .tar shards, or scenes:N. Where a table has several, write NAME=DATA for each,
    and rows without data are left out."""
    scale: Annotated[float, Limit(above=0, most=1)] = 1.0
    """Share of the paper's length of training, and of its number of scored images."""
    size: OptionalCount = None
    """Side of the images of all rows, pixels. Default: that of each row in the paper, whatever --scale."""
    seeds: str = ""
    """Seeds of the trainings of each row, of which the best counts, as in 0-4. Default: as many as in the paper."""
    autoencoder: OptionalPath = None
    """Run folder of an autoencoder, or default, instead of training the paper's first."""
    features: FeatureName = "inception"
    """Network that scores images; only inception's scores can be compared with published ones."""
    feature_weights: OptionalPath = None
    """Its weights. Inception finds its own: cached, else downloaded once (96 MB)."""
    vgg_weights: OptionalPath = None
    """Weights of torchvision's vgg16, which rows of lrm and fastgan need to be as published."""
    out: OptionalPath = None
    """Folder for everything; the same command goes on where it stopped. Default: runs/PAPER-TABLE. Tables of a paper
    may share a folder, and rows that they have in common are trained once; table.md is that of the last one."""
    allow_host: Hosts = ()
    """Web servers that DATA, and their redirects, may be read from."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig(Limited):
    """Put a run on one HTML page: scores, samples, curves, reconstructions, latents, data, configuration."""

    run: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH [PATH ...]")]
    """Run folder of `codegan train` or `codegan train-ae`; several are compared in the folder of the first."""
    data: Data = ()
    """The images that the first run was trained on, to show some of them. A run says where they are, but it may come
    from someone else, so only what is named here is read."""
    store: OptionalText = None
    """The store that the first run was trained on, to compare its latents with generated ones; read if named here."""


@dataclass(frozen=True, kw_only=True)
class CheckConfig(Limited):
    """Verify every byte of a store, or of what a run goes on from: its configuration, checkpoints and weights.

    Exit code 0 when all is well, 5 when something is damaged.
    """

    path: tyro.conf.Positional[LocationArg]
    """A store or a run folder, or one that `codegan metadata` made."""
