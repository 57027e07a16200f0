"""Lightweight Long-Range Generative Adversarial Networks, of anonymous authors."""

from collections.abc import Mapping
from typing import Any

from pipelines.reproduce.paper import DataSet, Paper, Row, Table, Training

TITLES = {"ffhq": "FFHQ", "cub": "CUB", "church": "ImageNet Church"}
MAP_SIDES = {"ffhq": 32, "cub": 64, "church": 64}  # of the map that has the module, as the paper suggests
KIMG = 3500
GROWING = "nothing here grows progressively"


def ours(data: str, **model: Any) -> Training:
    fields = {"long_range_size": MAP_SIDES[data], **model}
    return Training("lrm", 256, KIMG, batch_size=24, model=fields, vgg="" if "metadata_dim" in model else "metadata")


def rows(
    name: str, label: str, fids: tuple[float, float, float], costs: Mapping[str, float], **model: Any
) -> list[Row]:
    """Ours, or one of its ablations, on all data sets; `costs` are published for a network, not a data set."""
    return [
        Row(f"{data}-{name}", f"{label}, {TITLES[data]}", data, {"fid": fid, **costs}, ours(data, **model))
        for data, fid in zip(TITLES, fids, strict=True)
    ]


def sagan() -> list[Row]:
    costs = {"drawing": 1.89, "generator": 13.3, "critic": 51.6}
    training = Training("sagan", 256, KIMG, batch_size=24)
    return [
        Row(f"{data}-sagan", f"SAGAN, {TITLES[data]}", data, {"fid": fid, **costs}, training)
        for data, fid in zip(TITLES, (79.81, 70.93, 84.41), strict=True)
    ]


def pggan() -> list[Row]:
    costs = {"drawing": 17.24, "generator": 23.3, "critic": 23.3}
    return [
        Row(f"{data}-pggan", f"PGGAN, {TITLES[data]}", data, {"fid": fid, **costs}, reason=GROWING)
        for data, fid in zip(TITLES, (18.41, 38.73, 72.13), strict=True)
    ]


TABLE_1 = Table(
    "1",
    "FID, drawing time and size of three GANs and four ablations",
    ("fid", "drawing", "generator", "critic"),
    (
        *pggan(),
        *sagan(),
        *rows("ours", "Ours", (23.97, 24.85, 56.50), {"drawing": 0.83, "generator": 7.0, "critic": 7.6}),
        *rows("no-meta", "Ours w/o Meta", (35.35, 26.47, 68.70), {}, metadata_dim=0),
        *rows("no-lrm", "Ours w/o LRM", (156.59, 42.25, 177.28), {}, long_range="none"),
        *rows("residual", "Ours w/ Residual", (43.83, 43.21, 90.41), {}, long_range="residual"),
        *rows("attention", "Ours w/ SA", (187.61, 35.76, 84.47), {}, long_range="attention"),
    ),
    notes=(
        "Batch size and length are not published, only two days of training: batches of 24 and 3,500 thousand "
        "samples, 50 epochs of FFHQ, are taken.",
        "The number of scored samples is not published: 50,000 are taken.",
        "SAGAN's networks here are not those of the table.",
        "Samples are drawn with vectors of training images.",
    ),
)

LRM = Paper(
    "lrm",
    "Lightweight Long-Range Generative Adversarial Networks",
    "anonymous authors",
    "one Quadro RTX 6000: two days for each training",
    (
        DataSet("ffhq", "FFHQ", 70_000, 256),
        DataSet("cub", "CUB-200-2011, the training images", 8_000, 256),
        DataSet("church", "ImageNet, the class church", 2_000, 256),
    ),
    (TABLE_1,),
)
