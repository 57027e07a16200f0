"""The tables of papers as data: each row can be trained, and its published numbers are those of docs/papers."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.reproduce.paper import AutoencoderTraining, Row, Table, Training
from pipelines.reproduce.papers import PAPERS
from pipelines.scoring.protocols import PROTOCOLS
from stage1_autoencoder.configs import TrainAEConfig
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.variants import build_networks

ROOT = Path(__file__).parents[3]
NARROW = {"sle": {"width": 4}, "lrm": {"width": 2, "critic_width": 2, "metadata_rows": 16}}  # in place of 64 or more
TABLES = [(paper.name, table) for paper in PAPERS.values() for table in paper.tables]


def rows_of(name: str, *tables: str) -> Iterator[Row]:
    return (row for table in PAPERS[name].tables if not tables or table.name in tables for row in table.rows)


@pytest.mark.parametrize("name", PAPERS)
def test_every_row_makes_a_configuration_and_networks_of_its_size(name: str) -> None:
    built = []
    for row in rows_of(name):
        match row.training:
            case AutoencoderTraining(factor, kimg):
                TrainAEConfig(data=("faces",), out=Path("run"), factor=factor, kimg=kimg)
            case Training() as training if training not in built:
                config = training.config()
                assert config == training.config(**training.model)
                TrainConfig(
                    store=Path("store"),
                    out=Path("run"),
                    model=config,
                    kimg=training.kimg,
                    batch_size=training.batch_size,
                    mirror=training.mirror,
                )
                width = NARROW.get(training.variant, {"width": 16})
                build_networks(training.variant, training.code_shape(), **{**training.model, **width})
                built.append(training)


@pytest.mark.parametrize(("name", "table"), TABLES, ids=lambda value: getattr(value, "name", value))
def test_a_table_is_consistent(name: str, table: Table) -> None:
    paper = PAPERS[name]
    names = [row.name for row in table.rows]
    assert len(set(names)) == len(names)
    for row in table.rows:
        data = paper.data_set(row.data)
        assert row.published.keys() <= set(table.measures)
        if isinstance(row.training, Training):
            assert row.training.size <= data.side
            assert row.training.factor == 1 or paper.autoencoder_data
            assert all(hasattr(row.training.config(), field) for field in row.training.model)
    protocol = PROTOCOLS[table.protocol] if table.protocol else None
    sides = {row.training.size for row in table.rows if isinstance(row.training, Training)}
    if protocol:
        assert set(table.scored) <= set(protocol.metrics)
        assert sides <= set(protocol.sides)
        assert (table.snapshots > 1, table.seeds > 1) == tuple(
            bool(protocol.best_of and protocol.best_of[0] == kind) for kind in ("snapshot", "training")
        )


@pytest.mark.parametrize("name", PAPERS)
def test_rows_of_one_name_are_one_training_of_some_length(name: str) -> None:
    """Tables of a paper may share a folder, where rows of one name share their runs."""
    seen: dict[str, list[object]] = {}
    for row in rows_of(name):
        training = row.training
        if isinstance(training, Training):
            settings = [row.data, training.variant, training.size, training.batch_size, training.factor]
            settings += [dict(training.model), training.vgg, training.mirror]
            assert seen.setdefault(row.name, settings) == settings


def cells(name: str, head: str) -> list[list[str]]:
    """The rows of a page's table that begins with `head`."""
    lines = (ROOT / "docs" / "papers" / f"{name}.md").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(head)) + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def text(name: str) -> str:
    return " ".join((ROOT / "docs" / "papers" / f"{name}.md").read_text().split())


def published(name: str, *tables: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for row in rows_of(name, *tables):
        for measure, value in row.published.items():
            assert found.setdefault(row.name, {}).setdefault(measure, value) == value, row.name
    return found


def test_the_acceleration_framework_has_the_numbers_of_its_page() -> None:
    page = "acceleration_framework"
    errors = {
        f"autoencoder-{label.partition(',')[0].removeprefix('h/')}": {
            f"mse-{side}": float(value) for side, value in zip((128, 256, 512, 1024), values, strict=True)
        }
        for label, *values in cells(page, "| | 128 px")
    }
    assert published("accel", "1") == errors
    sizes: dict[str, dict[str, float]] = {}
    for label, minutes_before, minutes, fid_before, fid in cells(page, "| | minutes before"):
        size, _, factors = label.partition(" px, ")
        sizes[f"before-{size}"] = {"minutes": float(minutes_before), "fid": float(fid_before)}
        for factor, one, other in zip(factors.split("; "), minutes.split("; "), fid.split("; "), strict=True):
            sizes[f"after-{size}-{factor.removeprefix('h/')}"] = {"minutes": float(one), "fid": float(other)}
    assert published("accel", "3", "4", "6") == sizes
    listed = re.search(r"Table 5 gives FID on LSUN[^:]*: ([^.]*(?:\.\d[^.]*)*)\.", text(page))
    assert listed
    lsun: dict[str, dict[str, float]] = {}
    for name, before, after in re.findall(r"(\w+) ([\d.]+), ([\d.]+)", listed[1]):
        lsun |= {f"before-{name}": {"fid": float(before)}, f"after-{name}": {"fid": float(after)}}
    assert published("accel", "5") == lsun


GIU_NAMES = {
    "DCGAN": "dcgan",
    "LSGAN": "lsgan",
    "WGAN-GP": "wgan-gp",
    "(+2)": "plus-2",
    "(+3)": "plus-3",
    "SNGAN": "sngan",
    "SAGAN": "sagan",
    "GIU-GAN": "giu",
    "without RBN": "no-rbn",
    "without the module": "no-giu",
    "WGAN-GP with spectral norm": "baseline",
    "middle": "middle",
    "shallow D and deep G": "other-ends",
    "deep D and shallow G": "giu",
    "all": "all",
    "only G": "only-g",
    "only D": "only-d",
    "V1": "v1",
    "V2": "v2",
    "V3": "giu",
    "V4": "v4",
    "V5": "v5",
    "K = 5": "k5",
    "K = 7": "k7",
    "groups of 8 channels": "groups-8",
    "of 32": "groups-32",
}


def test_giu_has_the_numbers_of_its_page() -> None:
    found: dict[str, dict[str, float]] = {}

    def put(data: str, label: str, numbers: str) -> None:
        fid, inception = map(float, numbers.split(", "))
        known = found.setdefault(f"{data}-{GIU_NAMES[label]}", {"fid": fid, "is": inception})
        assert known == {"fid": fid, "is": inception}

    for labels, cifar, celeba in cells("giu", "| | CIFAR-10 | CelebA |"):
        for data, numbers in (("cifar-10", cifar), ("celeba", celeba)):
            for label, pair in zip(labels.split("; "), numbers.split("; "), strict=False):
                if pair not in ("", "-"):
                    put(data, label, pair)
    prose = re.search(r"Modules \(table 1\).*?(?= ## )", text("giu"))
    assert prose
    for label, pair in re.findall(r"([A-Za-z(][\w =]*?) ([\d.]+\.\d\d, [\d.]+\.\d\d)", prose[0]):
        put("cifar-10", label, pair)
    assert published("giu") == found


def test_lrm_has_the_numbers_of_its_page() -> None:
    names = ("pggan", "sagan", "ours", "no-meta", "no-lrm", "residual", "attention")
    found: dict[str, dict[str, float]] = {}
    for name, (_, *fids, drawing, sizes) in zip(names, cells("lrm", "| row | FFHQ"), strict=True):
        costs = {}
        if drawing:
            generator, critic = map(float, sizes.split(" / "))
            costs = {"drawing": float(drawing), "generator": generator, "critic": critic}
        for data, fid in zip(("ffhq", "cub", "church"), fids, strict=True):
            found[f"{data}-{name}"] = {"fid": float(fid), **costs}
    assert published("lrm") == found


def test_gca_has_the_numbers_of_its_page() -> None:
    found: dict[str, dict[str, float]] = {}
    for label, celeba, church in cells("gca", "| | CelebA | LSUN church |"):
        name = label.lower().replace(" + ", "-")
        found |= {f"celeba-{name}": {"fid": float(celeba)}, f"church-{name}": {"fid": float(church)}}
    assert published("gca") == found


def test_fastgan_has_the_numbers_of_its_page() -> None:
    names = ("stylegan2-quarter", "stylegan2-half", "stylegan2", "baseline", "ours")
    found = {}
    for name, (_, *numbers) in zip(names, cells("fastgan", "| | 256 px: h"), strict=True):
        for size, three in ((256, numbers[:3]), (1024, numbers[3:])):
            found[f"{name}-{size}"] = dict(zip(("hours", "memory", "parameters"), map(float, three), strict=True))
    assert published("fastgan", "1") == found


def test_the_page_lists_every_table_with_its_command() -> None:
    page = (ROOT / "docs" / "reproduce.md").read_text()
    for name, table in TABLES:
        assert f"codegan reproduce {name} --table {table.name} --data {table.data[0]}=" in page, (name, table.name)
