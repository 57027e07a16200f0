"""The flags of stage one; torch is not needed to read them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from data.flags import Data, Hosts, OptionalCount, OptionalPath
from data.limits import Count, Fraction, Limit, Limited, Positive, Weight
from data.sources.locations import LocationArg
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
    """Save a checkpoint and a preview every so many thousand crops."""
    precision: Precision = "fp32"
    """bf16 is about twice as fast where the hardware has it; weights stay fp32."""
    adversarial_weight: Weight = 0.01
    """Weight alpha of the adversarial loss (eq. 3); 0 trains without a discriminator."""
    warmup_kimg: Weight = 20.0
    """Thousands of crops before the adversarial loss joins."""
    lr: Positive = 1e-3
    """Learning rate of Adam for the autoencoder; half of it for the discriminator."""
    lr_ramp_kimg: Weight = 2.0
    """Thousands of crops over which the learning rate rises from 0: without it, codes saturate at once."""
    lr_decay_kimg: Weight = 0.0
    """Thousands of crops at the end of training over which both learning rates fall to 0."""
    code_noise: Weight = 0.0
    """Gaussian noise on the latents that the decoder learns from, so that it also decodes what a generator makes: its
    deviation is uniform between 0 and this for each crop."""
    mirror: bool = False
    """Learn from every other crop that latents mirror with their images: mirrored, each channel with its sign, they
    then decode almost as well as those of the mirrored image."""
    jitter: Weight = 0.0
    """Colours of crops vary by up to this: 0.1 is a tenth of the contrast and of half the range."""
    ema_halflife_kimg: Weight = 2.0
    """Half-life of the averaged weights, thousands of crops."""
    discriminator_width: Count = 64
    """Channels after the discriminator's first layer."""
    max_skip: Fraction = 0.01
    """Fraction of the files that may be unreadable."""
    threads: Count = 4
    """Threads that decode and crop images."""


@dataclass(frozen=True, kw_only=True)
class EncodeConfig(Limited):
    """Encode a data set into a latent store, once, at any size that the autoencoder's factor divides."""

    data: Data = ()
    """A folder, a .zip, .tar shards, or scenes:N."""
    autoencoder: OptionalPath = None
    """Run folder of an autoencoder. Unless a run here has that name: default, the one that is packaged with codegan
    and is used when this is left out; default:F for another factor F; or pixels, to store the pixels themselves."""
    out: LocationArg
    """The store to make, or the folder for one store a size; the same command goes on with an interrupted one.
    s3://BUCKET/STORE works too."""
    size: tuple[Count, ...] = (256,)
    """Sides in pixels that every image is fitted to (centre crop, Lanczos); several make the stores OUT/SIZE."""
    dtype: Literal["float16", "float32", "int8"] = "float16"
    """Numbers in the store: float32, float16, or int8 with a scale for each channel of each latent."""
    flip: bool = False
    """Also encode each image mirrored; the mirror of image i is row 2 i + 1."""
    batch_size: Count = 16
    """Images in a forward pass, on each process."""
    precision: Precision = "fp32"
    """bf16 is about twice as fast where the hardware has it; latents differ in the third digit."""
    max_skip: Fraction = 0.01
    """Fraction of the files that may be unreadable."""
    shard_rows: OptionalCount = None
    """Latents in a shard file, the unit that a process writes and that a crash can cost; by default as many as fill
    32 MB."""
    allow_host: Hosts = ()
    """Web servers that DATA, and their redirects, may be read from."""
    threads: Count = 4
    """Threads that decode images."""
    repair: bool = False
    """Restore the damaged files of the store at --out; data and autoencoder are those it names, unless given."""
