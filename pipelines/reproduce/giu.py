"""Tian et al.: GIU-GANs, Global Information Utilization for Generative Adversarial Networks."""

from typing import Any

from pipelines.reproduce.paper import DataSet, Paper, Row, Table, Training

SIDES = {"cifar-10": 32, "celeba": 64}
UNDESCRIBED = "its networks are not described, and those of the same name here have other sizes"
NOTES = (
    "The paper says representative batch norm is near the input and output layers: here it is on the first and the "
    "last hidden map.",
    "Baselines have the settings of their own papers, since these are not published.",
    "The best of ten snapshots is the one with the smallest FID.",
)


def train(variant: str, data: str, **model: Any) -> Training:
    """A million steps of 64."""
    return Training(variant, SIDES[data], 64_000, batch_size=64, model=model)


def row(name: str, label: str, published: tuple[float, float], training: Training, data: str = "cifar-10") -> Row:
    return Row(f"{data}-{name}", label, data, {"fid": published[0], "is": published[1]}, training)


def giu(label: str, name: str, fid: float, inception: float, data: str = "cifar-10", **model: Any) -> Row:
    return row(name, label, (fid, inception), train("giu", data, **model), data)


def whole(label: str) -> Row:
    """The model as it is proposed, which is in most tables."""
    return giu(label, "giu", 22.66, 4.72)


def without(data: str, name: str, label: str, fid: float, inception: float, reason: str) -> Row:
    return Row(f"{data}-{name}", label, data, {"fid": fid, "is": inception}, reason=reason)


def table(name: str, title: str, *rows: Row, notes: tuple[str, ...] = ()) -> Table:
    return Table(name, title, ("fid", "is"), rows, protocol="giu", snapshots=10, notes=(*notes, *NOTES))


TABLES = (
    table(
        "1",
        "places and numbers of GIU modules",
        giu("Middle D and G", "middle", 26.72, 4.36, generator_giu=(8,), critic_giu=(8,)),
        giu("Shallow D and Deep G", "other-ends", 39.53, 3.96, generator_giu=(16,), critic_giu=(16,)),
        whole("Deep D and Shallow G"),
        giu("All the D and G", "all", 35.36, 4.21, generator_giu=(4, 8, 16), critic_giu=(4, 8, 16)),
        giu("Only G", "only-g", 26.24, 4.52, critic_giu=()),
        giu("Only D", "only-d", 29.84, 4.44, generator_giu=()),
        notes=("The published size of Shallow D and Deep G is that of modules at both ends of both networks.",),
    ),
    table(
        "3",
        "learning rates and optimisers",
        giu("GIU-GANs-V1", "v1", 34.80, 4.39, critic_lr=1e-4, lr=4e-4),
        giu("GIU-GANs-V2", "v2", 23.18, 4.78, critic_lr=3e-4, lr=3e-4),
        whole("GIU-GANs-V3"),
        giu("GIU-GANs-V4", "v4", 61.28, 3.25, optimizer="adagrad"),
        giu("GIU-GANs-V5", "v5", 28.93, 4.47, optimizer="rmsprop"),
        notes=("RMSprop's decay is not published: here it is 0.9, Adam's second one.",),
    ),
    table(
        "4",
        "sizes and groups of the kernels",
        whole("K = 3, groups of 16 channels"),
        giu("K = 5, groups of 16 channels", "k5", 24.71, 4.64, kernel_size=5),
        giu("K = 7, groups of 16 channels", "k7", 22.97, 4.73, kernel_size=7),
        giu("K = 3, groups of 8 channels", "groups-8", 24.50, 4.58, group_channels=8),
        giu("K = 3, groups of 32 channels", "groups-32", 24.89, 4.65, group_channels=32),
    ),
    table(
        "5",
        "six GANs on CIFAR-10",
        without("cifar-10", "dcgan", "DCGANs", 26.22, 4.34, UNDESCRIBED),
        row("wgan-gp", "WGAN-GP", (22.95, 4.51), train("wgan-gp", "cifar-10")),
        without("cifar-10", "lsgan", "LSGANs", 66.51, 3.24, UNDESCRIBED),
        row("sngan", "SNGANs", (24.60, 4.40), train("sngan", "cifar-10")),
        row("sagan", "SAGANs", (67.31, 3.52), train("sagan", "cifar-10")),
        whole("GIU-GANs"),
    ),
    table(
        "6",
        "seven GANs on CelebA",
        row("wgan-gp", "WGAN-GP", (11.07, 2.48), train("wgan-gp", "celeba"), "celeba"),
        row(
            "plus-2",
            "WGAN-GP(+2)",
            (12.39, 2.50),
            train("wgan-gp", "celeba", generator_convs=(4, 8), critic_convs=(4, 8)),
            "celeba",
        ),
        row(
            "plus-3",
            "WGAN-GP(+3)",
            (8.98, 2.57),
            train("wgan-gp", "celeba", generator_convs=(4, 8, 16), critic_convs=(4, 8, 32)),
            "celeba",
        ),
        without("celeba", "lsgan", "LSGANs", 15.48, 2.40, UNDESCRIBED),
        row("sngan", "SNGANs", (7.09, 2.54), train("sngan", "celeba"), "celeba"),
        row("sagan", "SAGANs", (19.10, 2.11), train("sagan", "celeba"), "celeba"),
        giu("GIU-GANs", "giu", 6.34, 2.61, "celeba"),
    ),
    table(
        "7",
        "GIU-GANs without the module",
        giu("baseline", "baseline", 37.54, 3.83, generator_giu=(), critic_giu=(), generator_rbn=()),
        giu("GIU-GANs without GIU module", "no-giu", 39.97, 3.99, generator_giu=(), critic_giu=()),
        whole("GIU-GANs"),
    ),
    table(
        "8",
        "GIU-GANs without representative batch norm",
        giu("GIU-GANs without RBN, CIFAR-10", "no-rbn", 22.12, 4.79, generator_rbn=()),
        whole("GIU-GANs, CIFAR-10"),
        giu("GIU-GANs without RBN, CelebA", "no-rbn", 6.53, 2.50, "celeba", generator_rbn=()),
        giu("GIU-GANs, CelebA", "giu", 6.34, 2.61, "celeba"),
    ),
)

GIU = Paper(
    "giu",
    "GIU-GANs: Global Information Utilization for Generative Adversarial Networks",
    "Tian et al.",
    "one RTX 3090; hours are not given",
    (DataSet("cifar-10", "CIFAR-10, the training images", 50_000, 32), DataSet("celeba", "CelebA", 200_000, 64)),
    TABLES,
)
