"""The flags of stage one; torch is not needed to read them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from data.flags import Data, Hosts, LocationArg, OptionalCount, OptionalPath, SizeArg
from data.limits import Count, Fraction, Limit, Limited, Positive, Weight
from stage1_autoencoder.training.config import Precision, RunConfig

SMALLEST_CROP = 32  # pixels, for the discriminator


@dataclass(frozen=True, kw_only=True)
class TrainAEConfig(RunConfig):
    """Train an autoencoder on your images, once, at 128 px; it then encodes any size."""

    data: Data
    """A folder, a .zip, .tar shards, or scenes:N."""
    factor: Count = 4
    """Downsampling of each side: 2, 4, 8 or 16."""
    code_channels: Count = 16
    """Channels of the latents."""
    size: Annotated[int, Limit(least=SMALLEST_CROP)] = 128
    """Side of the training crops, pixels."""
    width: Count = 64
    """Channels at half resolution; three times as many further down."""
    init: OptionalPath = None
    """Fine-tune this autoencoder, its run folder or default, instead of starting from random weights."""
    snapshot_kimg: Positive = 20.0
    """Thousands of crops between two snapshots, each a checkpoint and a preview."""
    precision: Precision = "fp32"
    """Precision of the networks: bf16 is about twice as fast where the hardware supports it; weights stay fp32."""
    adversarial_weight: Weight = 0.01
    """Weight alpha of the adversarial loss (eq. 3); with 0 there is no discriminator."""
    warmup_kimg: Weight = 20.0
    """Thousands of crops before the adversarial loss joins."""
    lr: Positive = 1e-3
    """Learning rate of Adam for the autoencoder; the discriminator's is half of it."""
    lr_ramp_kimg: Weight = 2.0
    """Thousands of crops over which the learning rate rises from 0; without such a rise, latents saturate at once."""
    lr_decay_kimg: Weight = 0.0
    """Thousands of crops at the end of training over which both learning rates fall to 0."""
    code_noise: Weight = 0.0
    """Largest standard deviation of Gaussian noise on the latents that the decoder learns from; each crop's is uniform
    between 0 and this. Noise prepares the decoder for the latents of a generator."""
    mirror: bool = False
    """Train every other crop with mirrored latents. Mirrored latents, each channel times its sign, then decode almost
    as well as the latents of mirrored images."""
    jitter: Weight = 0.0
    """Vary the colours of crops by up to this share: 0.1 is a tenth of the contrast and of half the range."""
    ema_halflife_kimg: Weight = 2.0
    """Half-life of the averaged weights, in thousands of crops."""
    discriminator_width: Count = 64
    """Channels after the discriminator's first layer."""
    max_skip: Fraction = 0.01
    """Largest fraction of the files that may be unreadable."""
    threads: Count = 4
    """Threads that decode and crop images."""


@dataclass(frozen=True, kw_only=True)
class EncodeConfig(Limited):
    """Encode a data set into a latent store, once, at any size that the autoencoder's factor divides."""

    data: Data = ()
    """A folder, a .zip, .tar shards, or scenes:N."""
    autoencoder: OptionalPath = None
    """Run folder of an autoencoder, or a name that no run folder has: default, the autoencoder that is included in
    codegan and used when this is left out; default:F, for another factor F; pixels, to store the pixels themselves; or
    diffusers:FOLDER, an autoencoder that was published for that library (AutoencoderTiny, -KL or -DC)."""
    out: LocationArg
    """The store to make, or the folder for one store of each size, also as s3://BUCKET/STORE. The same command
    continues an interrupted encoding."""
    size: tuple[SizeArg, ...] = (256,)
    """Size in pixels to which every image is fitted (centre crop, Lanczos): a side, or width x height, as in 512x384.
    Several sizes make the stores OUT/SIZE."""
    dtype: Literal["float16", "float32", "int8"] = "float16"
    """Type of the numbers in the store: float32, float16, or int8 with a scale for each channel of each latent."""
    flip: bool = False
    """Also encode the mirror of each image; that of image i is row 2 i + 1."""
    batch_size: Count = 16
    """Images in a forward pass, in each process."""
    precision: Precision = "fp32"
    """Precision of the encoder: bf16 is about twice as fast where the hardware supports it, and changes the third digit
    of latents."""
    max_skip: Fraction = 0.01
    """Largest fraction of the files that may be unreadable."""
    shard_rows: OptionalCount = None
    """Latents in a shard file, the unit that a process writes and that a crash can lose; by default as many as fill
    32 MB."""
    allow_host: Hosts = ()
    """Web servers from which DATA, and their redirects, may be read."""
    threads: Count = 4
    """Threads that decode images."""
    repair: bool = False
    """Restore the damaged files of the store at --out, from the data and the autoencoder that it names unless others
    are given."""
