"""Liu et al. 2021: Towards Faster and Stabilized GAN Training for High-Fidelity Few-Shot Image Synthesis (FastGAN)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipelines.reproduce.paper import DataSet, Paper, Row, Table, Training

KIMG = 400  # 50,000 steps of 8
STEPS_KIMG = 80  # 10,000 steps of 8
NO_STYLEGAN = "no variant here is StyleGAN2"
TOO_LARGE = "pixels of more than 256 x 256 cannot be trained on here"
BASELINE = {"excitation": "none", "reconstruct": "none"}
# data set -> images, as far as the text says
FEW = {"obama": 100, "panda": 100, "grumpy-cat": 100, "cat": None, "dog": None}
TITLES = {
    "obama": "100-Shot-Obama",
    "panda": "100-Shot-Panda",
    "grumpy-cat": "100-Shot-Grumpy-cat",
    "cat": "Animal-Face Cat",
    "dog": "Animal-Face Dog",
}


def train(changes: Mapping[str, Any], reconstructs: bool) -> Training:
    fields = {"augment": "color,translation", "soft_margin": (1.0, 1.0), **changes}
    return Training("sle", 256, KIMG, 8, model=fields, vgg="lpips" if reconstructs else "", mirror=False)


OURS, BASE = train({}, reconstructs=True), train(BASELINE, reconstructs=False)


def costs(size: int, name: str, label: str, numbers: tuple[float, float, float], training: Training | None) -> Row:
    """Hours per 10,000 steps, GB and millions of parameters."""
    reason = ""
    if training is None:
        reason = NO_STYLEGAN
    elif size > 256:
        training, reason = None, TOO_LARGE
    else:
        training = replace(training, kimg=STEPS_KIMG)
    published = dict(zip(("hours", "memory", "parameters"), numbers, strict=True))
    return Row(f"{name}-{size}", f"{label}, {size} px", "obama", published, training, reason)


TABLE_1 = Table(
    "1",
    "hours, memory and parameters",
    ("hours", "memory", "parameters"),
    (
        costs(256, "stylegan2-quarter", "StyleGAN2@0.25", (1, 7, 27.557), None),
        costs(256, "stylegan2-half", "StyleGAN2@0.5", (1.8, 16, 45.029), None),
        costs(256, "stylegan2", "StyleGAN2", (3.8, 18, 108.843), None),
        costs(256, "baseline", "Baseline", (0.7, 5, 44.359), BASE),
        costs(256, "ours", "Ours", (1, 6.5, 47.363), OURS),
        costs(1024, "stylegan2-quarter", "StyleGAN2@0.25", (3.6, 12, 27.591), None),
        costs(1024, "stylegan2-half", "StyleGAN2@0.5", (5, 23, 45.15), None),
        costs(1024, "stylegan2", "StyleGAN2", (7, 36, 109.229), None),
        costs(1024, "baseline", "Baseline", (1.3, 9, 44.377), BASE),
        costs(1024, "ours", "Ours", (1.7, 10, 47.413), OURS),
    ),
    notes=(
        "Each row trains 10,000 steps on any pictures: the data set does not matter to its numbers.",
        "The networks are those that the authors published, whose number of parameters is not the table's.",
    ),
)


def ablations(data: str) -> tuple[Row, ...]:
    rows = {
        "baseline": ("Baseline", BASE),
        "excitation": ("Baseline + SLE", train({"reconstruct": "none"}, reconstructs=False)),
        "reconstruction": ("Baseline + self-supervision", train({"excitation": "none"}, reconstructs=True)),
        "ours": ("Ours", OURS),
    }
    return tuple(
        Row(f"{data}-{name}", f"{label}, {TITLES[data]}", data, {}, training)
        for name, (label, training) in rows.items()
    )


FEW_SHOT = Table(
    "few-shot",
    "FID at 256 px, published numbers missing",
    ("fid",),
    tuple(row for data in FEW for row in ablations(data)),
    protocol="fastgan",
    seeds=5,
    notes=(
        "The published numbers of these rows are in tables that the copy of the paper used here lacks.",
        "All rows keep the critic's second branch, as in the networks that the authors published.",
    ),
)

FASTGAN = Paper(
    "fastgan",
    "Towards Faster and Stabilized GAN Training for High-Fidelity Few-Shot Image Synthesis",
    "Liu, Zhu, Song and Elgammal",
    "one RTX 2080 Ti: 1 hour for 10,000 steps at 256 px, so 5 hours for each training",
    tuple(DataSet(name, TITLES[name], count, 256) for name, count in FEW.items()),
    (TABLE_1, FEW_SHOT),
)
