"""Liu, Yao, Ren: An Acceleration Framework for High Resolution Image Synthesis."""

from dataclasses import replace

from pipelines.reproduce.paper import AutoencoderTraining, DataSet, Paper, Row, Table, Training

KIMG = 2880  # 96 epochs: three days at 45 minutes, which the paper gives for 1024 px
EPOCH_KIMG = 30
AE_KIMG = 200
TOO_LARGE = "pixels of more than 256 x 256 cannot be trained on here"
LENGTH = (
    "The length is known only for 1024 px, as 3 days at 45 minutes per epoch: 96 epochs of 30,000 images. It is taken "
    "for all sizes and data sets."
)
AUTOENCODER = "The autoencoder's length is not published, only its 4.5 hours: 200 thousand crops are taken."
BATCH = "Batch size, optimiser and z are not published: 16, Adam 2e-4 (0, 0.9), 512."


def before(size: int) -> Training:
    return Training("accel", size, KIMG)


def after(size: int, factor: int = 4) -> Training:
    return Training("accel", size, KIMG, factor=factor)


# size, then minutes per epoch and FID, before and after; tables 3 and 4
SIZES = ((256, 30, 23.62, 8, 20.78), (512, 56, 30.43, 22, 14.72), (1024, 225, 54.83, 45, 14.80))


def row_before(size: int, published: dict[str, float], kimg: float = KIMG) -> Row:
    training = replace(before(size), kimg=kimg) if size <= 256 else None
    reason = "" if training else TOO_LARGE
    return Row(f"before-{size}", f"{size} px, before acceleration", "celeba-hq", published, training, reason)


def row_after(size: int, published: dict[str, float], factor: int = 4, kimg: float = KIMG) -> Row:
    name = f"after-{size}-{factor}"
    label = f"{size} px, after acceleration, h/{factor}"
    return Row(name, label, "celeba-hq", published, replace(after(size, factor), kimg=kimg))


TABLE_1 = Table(
    "1",
    "reconstruction errors of autoencoders",
    ("mse-128", "mse-256", "mse-512", "mse-1024"),
    tuple(
        Row(
            f"autoencoder-{factor}",
            f"h/{factor} x w/{factor} x 16",
            "celeba-hq",
            dict(zip(("mse-128", "mse-256", "mse-512", "mse-1024"), errors, strict=True)),
            AutoencoderTraining(factor, AE_KIMG),
        )
        for factor, errors in (
            (2, (2.7e-4, 2.0e-4, 1.5e-4, 1.1e-4)),
            (4, (1.3e-3, 1.0e-3, 7.5e-4, 3.5e-4)),
            (8, (3.4e-3, 2.8e-3, 2.0e-3, 8.8e-4)),
        )
    ),
    notes=(
        AUTOENCODER,
        "The range of pixels behind the errors is not published: here it is [-1, 1].",
        "Errors are means over at most 256 images that were held out of the training.",
    ),
)

TABLE_3 = Table(
    "3",
    "minutes per epoch before and after acceleration",
    ("minutes",),
    tuple(
        row
        for size, minutes_before, _, minutes_after, _ in SIZES
        for row in (
            row_before(size, {"minutes": minutes_before}, EPOCH_KIMG),
            row_after(size, {"minutes": minutes_after}, kimg=EPOCH_KIMG),
        )
    ),
    notes=("Each row trains one epoch, of 30,000 images.", AUTOENCODER, BATCH),
)

TABLE_4 = Table(
    "4",
    "FID before and after acceleration",
    ("fid",),
    tuple(
        row
        for size, _, fid_before, _, fid_after in SIZES
        for row in (row_before(size, {"fid": fid_before}), row_after(size, {"fid": fid_after}))
    ),
    protocol="accel",
    notes=(LENGTH, AUTOENCODER, BATCH),
)

LSUN = ("cat", "airplane", "bus", "bird", "bedroom", "church")
TABLE_5 = Table(
    "5",
    "FID on LSUN before and after acceleration",
    ("fid",),
    tuple(
        row
        for name, fid_before, fid_after in zip(
            LSUN, (66.90, 72.53, 25.75, 62.44, 38.32, 30.99), (34.25, 25.78, 15.29, 28.42, 17.90, 21.91), strict=True
        )
        for row in (
            Row(f"before-{name}", f"{name}, before acceleration", name, {"fid": fid_before}, before(256)),
            Row(f"after-{name}", f"{name}, after acceleration", name, {"fid": fid_after}, after(256)),
        )
    ),
    protocol="accel",
    notes=("The autoencoder is that of the faces of CelebA-HQ, as in the paper.", LENGTH, AUTOENCODER, BATCH),
)

TABLE_6 = Table(
    "6",
    "FID and minutes per epoch for smaller codes at 1024 px",
    ("fid", "minutes"),
    (
        row_before(1024, {"fid": 54.83, "minutes": 225}),
        row_after(1024, {"fid": 14.80, "minutes": 45}, 4),
        row_after(1024, {"fid": 17.71, "minutes": 19}, 8),
        row_after(1024, {"fid": 22.12, "minutes": 9}, 16),
    ),
    protocol="accel",
    notes=(LENGTH, AUTOENCODER, BATCH),
)

ACCEL = Paper(
    "accel",
    "An Acceleration Framework for High Resolution Image Synthesis",
    "Liu, Yao and Ren",
    "one P100 of 16 GB: 4.5 hours for the autoencoder, 3 days for the generator at 1024 px",
    (
        DataSet("celeba-hq", "CelebA-HQ", 30_000, 1024),
        *(DataSet(name, f"LSUN {name}", None, 256) for name in LSUN),
    ),
    (TABLE_1, TABLE_3, TABLE_4, TABLE_5, TABLE_6),
    autoencoder_data="celeba-hq",
    autoencoder_kimg=AE_KIMG,
)
