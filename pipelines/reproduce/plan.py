"""What the flags ask for: which rows of which table, on which data, and how that departs from the paper."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from data.errors import InputError, UsageError
from data.scenes.factors import parse_scenes
from data.sources.decoding import Unreadable, probe
from data.sources.listing import list_entries
from data.sources.locations import redacted
from data.spacing import evenly_spaced
from pipelines.configs import ReproduceConfig
from pipelines.reproduce.paper import DataSet, Paper, Row, Table, Training
from pipelines.reproduce.papers import PAPERS
from pipelines.scoring.config import Resize
from pipelines.scoring.protocols import MetricName
from pipelines.scoring.protocols import departures as scoring_departures
from pipelines.seeds import parse_seeds

ABOUT_AS_MANY = 0.1  # share by which the number of images may differ from the paper's without remark
LOOKED_AT = 32  # images whose size is read before the work; encoding reads all
LEAST_SCORED = 4
RESIZE: Resize = "legacy_pytorch"  # as the code that gave the papers their numbers


class Source(NamedTuple):
    """Data that stands for one of a paper's data sets."""

    data: tuple[str, ...]
    departures: tuple[str, ...]

    @property
    def name(self) -> str:
        return ", ".join(map(redacted, self.data))


@dataclass(frozen=True)
class Plan:
    config: ReproduceConfig
    paper: Paper
    table: Table
    rows: tuple[Row, ...]  # to run
    sources: Mapping[str, Source]  # by data set
    autoencoder_source: Source | None  # where an autoencoder has to be trained
    seeds: tuple[int, ...]
    out: Path
    departures: tuple[str, ...]  # phrases

    @property
    def num(self) -> int:
        """Generated images to score."""
        return scored_images(self.config, self.table)

    def size(self, training: Training) -> int:
        """Of the images of a row, pixels."""
        return self.config.size or training.size


def find_paper(name: str) -> Paper:
    if name not in PAPERS:
        raise UsageError(f"{name}: is not a paper whose tables can be reproduced", f"choose {listed(PAPERS, 'or')}")
    return PAPERS[name]


def find_table(paper: Paper, name: str) -> Table:
    tables = {table.name: table for table in paper.tables}
    if name not in tables:
        raise UsageError(f"--table {name}: {paper.name} has no such table of results", f"choose {listed(tables, 'or')}")
    return tables[name]


def make_plan(config: ReproduceConfig, paper: Paper, table: Table) -> Plan:
    """Decide what to run, and look at the data.

    Raises `UsageError` for rows or data sets that the table does not have, and `InputError` where data is missing.
    """
    if config.vgg_weights and not config.vgg_weights.is_file():
        raise InputError(f"{config.vgg_weights}: is not a file", "give torchvision's vgg16 weights to --vgg-weights")
    chosen = _chosen_rows(config.rows, table)
    data = _assigned_data(config.data, paper, table)
    given = data.get("") or ()
    missing = [name for name in dict.fromkeys(row.data for row in chosen if row.training) if name not in data]
    rows = tuple(row for row in chosen if row.training and row.data in data)
    if not rows or (config.rows and missing):
        raise _missing_data(paper, table, missing or table.data)
    sources = {name: _source(paper.data_set(name), data[name], rows, config) for name in table.data if name in data}
    autoencoder_source, remarks = None, list[str]()
    if any(isinstance(row.training, Training) and row.training.factor > 1 for row in rows):
        own = paper.data_set(paper.autoencoder_data)
        if config.autoencoder:
            remarks.append(f"the autoencoder is {config.autoencoder}, not one trained on {own.title}")
        elif own.name in data:
            autoencoder_source = Source(data[own.name], ())
        elif given:
            autoencoder_source = Source(given, ())
            remarks.append(f"the autoencoder is trained on {autoencoder_source.name}, not on {own.title}")
        else:
            raise _missing_data(
                paper, table, [own.name], "or take an autoencoder that exists, as in --autoencoder default"
            )
    seeds = parse_seeds("--seeds", config.seeds) if config.seeds else range(table.seeds)
    found = (phrase for source in sources.values() for phrase in source.departures)
    departures = (*found, *remarks, *_settings_departures(config, table, rows, len(seeds)))
    out = config.out or Path("runs") / f"{paper.name}-{table.name}"
    return Plan(config, paper, table, rows, sources, autoencoder_source, tuple(seeds), out, departures)


def scored_images(config: ReproduceConfig, table: Table) -> int:
    return max(LEAST_SCORED, round(table.num * config.scale))


def _chosen_rows(names: Sequence[str], table: Table) -> list[Row]:
    known = {row.name: row for row in table.rows}
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"--rows {unknown[0]}: table {table.name} has no such row", f"choose from {', '.join(known)}")
    return [row for row in table.rows if not names or row.name in names]


def _assigned_data(words: Sequence[str], paper: Paper, table: Table) -> dict[str, tuple[str, ...]]:
    """The data for each data set by its name, from words as NAME=DATA.

    Words without a name stand for the table's first data set, and are under the empty name as well.
    """
    known = list(dict.fromkeys([*table.data, *([paper.autoencoder_data] if paper.autoencoder_data else [])]))
    data: dict[str, tuple[str, ...]] = {}
    for word in words:
        name, equals, location = word.partition("=")
        if not equals or (name not in known and (not re.fullmatch(r"[\w-]+", name) or Path(word).exists())):
            name, location = "", word
        elif name not in known:
            what = f"--data {redacted(word)}: table {table.name} of {paper.name} has no data set {name}"
            raise UsageError(what, f"name {listed(known, 'or')}")
        data[name] = (*data.get(name, ()), location)
    first = table.data[0]
    if "" in data and first in data:
        raise UsageError(f"--data: gives {first} twice, with its name and without", "leave out one of them")
    return data | ({first: data[""]} if "" in data else {})


def _missing_data(paper: Paper, table: Table, names: Sequence[str], otherwise: str = "") -> InputError:
    needed = "; ".join(describe(paper.data_set(name)) for name in names)
    words = " ".join(f"{name}=FOLDER" for name in names)
    otherwise = otherwise or "scenes:N, or pictures of your own, may stand in"
    return InputError(f"{paper.name} table {table.name}: needs {needed}", f"add --data {words}; {otherwise}")


def describe(data: DataSet) -> str:
    """A data set with how many images it has, and how large."""
    count = f"{data.count:,} images" if data.count else "number of images not published"
    return f"{data.title} ({count}, {data.side} px or more)"


def _source(expected: DataSet, data: tuple[str, ...], rows: Sequence[Row], config: ReproduceConfig) -> Source:
    """The data, and in what it is not what the paper used, as far as a look at some of it shows."""
    if len(data) == 1 and data[0].startswith("scenes:"):
        parse_scenes(data[0])
        return Source(data, (f"{data[0]} in place of {expected.title}",))
    entries = list_entries(data, config.allow_host).entries
    remarks = []
    if expected.count and abs(len(entries) - expected.count) > ABOUT_AS_MANY * expected.count:
        remarks.append(f"{expected.title} with {len(entries):,} images instead of {expected.count:,}")
    sides = []
    for index in evenly_spaced(len(entries), LOOKED_AT):
        try:
            height, width, _ = probe(entries[index].read())
        except Unreadable:
            continue  # encoding says which files cannot be read
        sides.append(min(height, width))
    used = [row.training for row in rows if row.data == expected.name]
    needed = max(
        (config.size or training.size for training in used if isinstance(training, Training)), default=expected.side
    )
    if sides and min(sides) < needed:
        remarks.append(f"{expected.title} with images of {min(sides)} px, enlarged to {needed} px")
    return Source(data, tuple(remarks))


def _settings_departures(config: ReproduceConfig, table: Table, rows: Sequence[Row], seeds: int) -> list[str]:
    found = []
    trainings = [row.training for row in rows if isinstance(row.training, Training)]
    if config.scale != 1:
        found.append(f"trained for {config.scale:g} of the length")
    if config.size and (others := sorted({training.size for training in trainings} - {config.size})):
        found.append(f"at {config.size} px instead of {listed(others, 'and')} px")
    if seeds < table.seeds:
        found.append(f"{seeds} of the paper's {table.seeds} trainings of each row")
    if not config.vgg_weights and any(training.vgg == "metadata" for training in trainings):
        found.append("metadata are latents pooled over space instead of VGG-16's vectors (--vgg-weights)")
    if not config.vgg_weights and any(training.vgg == "lpips" for training in trainings):
        found.append("reconstructions have the mean absolute error instead of LPIPS (--vgg-weights)")
    if table.scored:
        found += [f"scored {phrase}" for phrase in _scored_otherwise(config, table)]
    return found


def _scored_otherwise(config: ReproduceConfig, table: Table) -> list[str]:
    num = scored_images(config, table)
    metrics = measurable(config, table)
    if not table.protocol:
        fewer = [f"at {num:,} instead of {table.num:,}"] if num != table.num else []
        return fewer + ([f"on {config.features} features"] if config.features != "inception" else [])
    settings = {"protocol": table.protocol, "num": num, "features": config.features, "resize": RESIZE}
    # Sides are compared with those of the rows, and the best of several is taken as in the paper.
    return scoring_departures(settings | {"size": None, "best": False, "nimg": 0}, metrics, best_taken=True)


def measurable(config: ReproduceConfig, table: Table) -> list[MetricName]:
    """The table's metrics, without those that the features do not give."""
    return [metric for metric in table.scored if metric != "is" or config.features != "offline"]


def listed(names: Any, last: str) -> str:
    """a, b or c"""
    *others, final = map(str, names)
    return f"{', '.join(others)} {last} {final}" if others else final
