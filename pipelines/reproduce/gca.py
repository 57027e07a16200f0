"""Peng et al.: Leveraging GANs via Non-local Features."""

from typing import Any

from pipelines.reproduce.paper import DataSet, Paper, Row, Table, Training


def rows(name: str, label: str, celeba: float, church: float, variant: str, **model: Any) -> tuple[Row, Row]:
    """One network on both data sets."""
    training = Training(variant, 64, 200, model=model)
    return (
        Row(f"celeba-{name}", f"{label}, CelebA", "celeba", {"fid": celeba}, training),
        Row(f"church-{name}", f"{label}, LSUN (church)", "church", {"fid": church}, training),
    )


TABLE_1 = Table(
    "1",
    "FID of DCGAN and SAGAN with and without GCA",
    ("fid",),
    (
        *rows("dcgan", "DCGAN", 33.39, 33.59, "dcgan"),
        *rows("dcgan-nl", "DCGAN + NL", 34.56, 54.36, "gca", relation="non-local"),
        *rows("dcgan-gca", "DCGAN + GCA", 25.75, 22.15, "gca"),
        *rows("sagan", "SAGAN", 54.75, 36.56, "sagan", generator_attention=(8,), critic_attention=(8,)),
        *rows("sagan-gca", "SAGAN + GCA", 37.39, 28.74, "gca", host="sagan"),
    ),
    protocol="gca",
    notes=(
        "Batch size and length are not published: 16, and 200 thousand samples, which are one epoch of CelebA.",
        "Whether the graph's edges were binary is not published: here they are the attention weights.",
    ),
)

GCA = Paper(
    "gca",
    "Leveraging GANs via Non-local Features",
    "Peng et al.",
    "one V100; hours are not given",
    (DataSet("celeba", "CelebA", 202_599, 64), DataSet("church", "LSUN church", None, 64)),
    (TABLE_1,),
)
