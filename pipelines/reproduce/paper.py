"""What a paper's tables are made of: data sets, rows with published numbers, and trainings that make them again.

A row is one training on one data set, so a table with a column for each of two data sets has two rows for each of its
own. Rows of one name in several tables of a paper are the same training.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.scoring.protocols import PROTOCOLS, MetricName, ProtocolName
from stage2_codegen.configs.base import VariantConfig
from stage2_codegen.configs.registry import CONFIGS

AUTOENCODER_SIDE = 128  # pixels of the crops that an autoencoder is trained on
CODE_CHANNELS = 16
MEASURES: dict[str, str] = {  # and the head of its columns
    "fid": "FID",
    "is": "IS",
    "minutes": "minutes per epoch of 30,000",
    "hours": "hours per 10,000 steps",
    "memory": "memory, GB",
    "drawing": "seconds for 100 images",
    "parameters": "parameters, M",
    "generator": "generator, M",
    "critic": "critics, M",
    **{f"mse-{side}": f"MSE at {side} px" for side in (128, 256, 512, 1024)},
}
SCORED: tuple[MetricName, ...] = ("fid", "is")  # of the measures


@dataclass(frozen=True)
class DataSet:
    """Pictures that a paper trained on."""

    name: str  # what --data calls it
    title: str
    count: int | None  # images in it; None where the paper does not say
    side: int  # pixels that the shorter side of its images has at least


@dataclass(frozen=True)
class Training:
    """A code generator to train, and the settings that decide what comes out."""

    variant: str
    size: int  # of the images, pixels
    kimg: float  # thousands of samples
    batch_size: int = 16
    factor: int = 1  # of the autoencoder that makes the codes; 1 for the pixels themselves
    model: Mapping[str, Any] = field(default_factory=dict)  # fields of the variant that are not its defaults
    vgg: Literal["", "metadata", "lpips"] = ""  # what VGG-16 is for, besides
    mirror: bool | None = None

    def config(self, **more: Any) -> VariantConfig:
        """The variant's configuration; raises `UsageError` for values that a field cannot have."""
        return CONFIGS[self.variant](**{**self.model, **more})

    def code_shape(self, size: int | None = None) -> tuple[int, int, int]:
        """Of the codes of images of `size` pixels, by default the paper's."""
        side = (size or self.size) // self.factor
        return (CODE_CHANNELS if self.factor > 1 else 3, side, side)


@dataclass(frozen=True)
class AutoencoderTraining:
    """An autoencoder to train, whose reconstructions are measured."""

    factor: int
    kimg: float  # thousands of crops


@dataclass(frozen=True)
class Row:
    name: str  # the folder of its runs, and what --rows calls it
    label: str  # what the paper calls it
    data: str  # name of the data set
    published: Mapping[str, float]  # by measure
    training: Training | AutoencoderTraining | None = None
    reason: str = ""  # why it cannot be run, where there is no training

    def __post_init__(self) -> None:
        assert (self.training is None) == bool(self.reason), self.name
        assert self.published.keys() <= MEASURES.keys(), self.name


@dataclass(frozen=True)
class Table:
    name: str  # what --table takes: its number in the paper, where it has one
    title: str
    measures: tuple[str, ...]
    rows: tuple[Row, ...]
    protocol: ProtocolName | None = None
    snapshots: int = 1  # of a training, evenly spaced, that are scored; the best counts
    seeds: int = 1  # trainings of a row, of which the best counts
    notes: tuple[str, ...] = ()  # what the paper leaves open and how it is done here, a sentence each

    @property
    def data(self) -> list[str]:
        """Names of the data sets of rows that can be run, in their order."""
        return list(dict.fromkeys(row.data for row in self.rows if row.training))

    @property
    def num(self) -> int:
        """Generated images that are scored."""
        return PROTOCOLS[self.protocol].num if self.protocol else 50_000

    @property
    def scored(self) -> tuple[MetricName, ...]:
        return tuple(metric for metric in SCORED if metric in self.measures)


@dataclass(frozen=True)
class Paper:
    name: str
    title: str
    authors: str
    machine: str  # that its authors had, and the time it took as far as they say
    data: tuple[DataSet, ...]
    tables: tuple[Table, ...]
    autoencoder_data: str = ""  # name of the data set that its autoencoder was trained on
    autoencoder_kimg: float = 0

    def data_set(self, name: str) -> DataSet:
        return next(each for each in self.data if each.name == name)
