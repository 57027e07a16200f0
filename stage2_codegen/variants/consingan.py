"""ConSinGAN (Hinz, Fisher, Wang, Wermter, "Improved Techniques for Training Single-Image GANs", section 3).

    generator  z of the first side -> head -> body 0 -> enlarge, body 1 -> ... -> tail -> codes of the stage's side
    critic     five 3 x 3 convolutions without padding, so that it judges patches of 11 x 11

Stages have growing sides, each trained for a while with the newest of those before it. The stage is part of the
generator's state, and a generator that has not reached the last one enlarges its codes. With attention "gca", graph
convolution follows the head, as in section 4 of Peng et al., "Leveraging GANs via Non-local Features".
"""

import dataclasses
import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.errors import UsageError
from data.latents import LatentStore
from stage2_codegen.augment import Judged
from stage2_codegen.codes import CodeScale
from stage2_codegen.configs.consingan import ConSinGANConfig
from stage2_codegen.fp32 import at_least_fp32, full_precision
from stage2_codegen.losses import AnyCritic, LossAndLogs, score_logs
from stage2_codegen.modules import GraphConvolution
from stage2_codegen.rank_noise import normal_rows, uniform_rows
from stage2_codegen.variants.contract import CodeGenerator, CodeShape

SLOPE = 0.05  # of every leaky ReLU here
INIT_STD = 0.02
DEPTH = 3  # convolutions of a body
LEAST_SIDE = 11  # what one score of the critic sees
Shape = tuple[int, int]  # height and width

DECAY_AT, DECAY = 0.8, 0.1  # share of a stage after which learning rates are lower, and by how much


def stage_sides(size: int, config: ConSinGANConfig) -> list[int]:
    """Return the shorter side of each stage's codes; 25, 32, 45, 71, 158, 250 for a `size` of 250.

    Raises `UsageError` for a first side that is too small for the critic, or larger than the codes.
    """
    first = config.min_side or max(LEAST_SIDE, min(25, size // 2))
    if not LEAST_SIDE <= first <= size:
        raise UsageError(f"min_side {first}: codes of {size} x {size}", f"give --model.min-side {LEAST_SIDE} to {size}")
    last = config.stages - 1
    ratio = (first / size) ** (1 / last)
    # More stages have small sides than in SinGAN, where the sides grow by the same factor: global structure is learnt
    # there.
    exponents = [(last - 1) / math.log(last) * math.log(last - stage) + 1 for stage in range(last)]
    return [*(round(size * ratio**exponent) for exponent in exponents), size]


def stage_shapes(shape: Shape, config: ConSinGANConfig) -> list[Shape]:
    """Return the height and width of each stage's codes; `stage_sides` are the shorter ones."""
    height, width = shape
    shorter = min(shape)
    return [(round(height * side / shorter), round(width * side / shorter)) for side in stage_sides(shorter, config)]


def schedule(config: ConSinGANConfig, kimg: float) -> ConSinGANConfig:
    """Return the configuration after `kimg` thousand samples: the stage, with its learning rates."""
    progress = kimg / config.stage_kimg
    stage = min(int(progress), config.stages - 1)
    factor = DECAY if progress - stage >= DECAY_AT else 1.0
    return dataclasses.replace(config, stage=stage, lr=factor * config.lr, critic_lr=factor * config.critic_lr)


def conv(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    """A convolution of 3 x 3 without padding, with weights of N(0, 0.02)."""
    layer = nn.Conv2d(inputs, outputs, 3, bias=bias)
    nn.init.normal_(layer.weight, 0, INIT_STD)
    return layer


def body(width: int) -> nn.Sequential:
    """(N, width, H, W) -> (N, width, H - 6, W - 6)."""
    layers = [layer for _ in range(DEPTH) for layer in (conv(width, width), nn.LeakyReLU(SLOPE))]
    return nn.Sequential(*layers)


def resized(maps: Tensor, shape: Shape) -> Tensor:
    """Enlarge maps (N, C, H, W) to this height and width."""
    return F.interpolate(maps, shape, mode="bicubic", align_corners=True)


def bordered(shape: Shape) -> Shape:
    """Return the height and width that a body makes into `shape`."""
    height, width = shape
    return height + 2 * DEPTH, width + 2 * DEPTH


def take_stage(generator: nn.Module, _: object) -> None:
    """After weights were loaded, continue in the stage that they were saved in."""
    assert isinstance(generator, Generator)
    generator.stage = int(generator.reached)


class Generator(CodeGenerator):
    """z (N, C h w) with h x w of the first stage -> codes (N, C, H, W), in (-1, 1) unless standardised.

    `judged` gives the picture and its reconstruction, both in the size of the current stage, then codes of that size
    and the same codes enlarged to H x W. Raises `UsageError` for graph convolution on codes that are not square.
    """

    picture: Tensor  # (1, C, H, W), codes
    amplitudes: Tensor  # (stages,), of the noise that enters each body
    reached: Tensor  # (), the current stage; `stage` is the same number, for which nobody waits for the device

    def __init__(self, code_shape: CodeShape, config: ConSinGANConfig) -> None:
        super().__init__()
        channels, *shape = code_shape
        self.shape = (shape[0], shape[1])
        self.config, self.shapes = config, stage_shapes(self.shape, config)
        self.stage = len(self.shapes) - 1 if config.stage is None else config.stage
        self.z_dim = channels * math.prod(self.shapes[0])
        self.head, self.tail = conv(channels, config.width), conv(config.width, channels)
        self.bodies = nn.ModuleList(body(config.width) for _ in self.shapes)
        self.bound = nn.Identity() if config.standardise else nn.Tanh()
        self.relation: nn.Module = nn.Identity()
        if config.attention == "gca":
            if shape[0] != shape[1]:
                raise UsageError("attention gca: needs square codes", "leave out --model.attention")
            # One number for each node: N x N weights are more than a whole stage has, and C N more are not needed.
            self.relation = GraphConvolution(config.width, self.shapes[0][0], node_features="diag")
        device, fixed = torch.get_default_device(), torch.Generator().manual_seed(0)
        # Until `condition` has shown the data, the picture is always the same noise.
        picture = torch.randn(1, channels, *self.shape, generator=fixed, device="cpu").clamp(-1, 1)
        self.register_buffer("picture", picture.to(device))
        self.register_buffer("amplitudes", torch.ones(len(self.shapes)))
        self.register_buffer("reached", torch.tensor(self.stage))
        for stage, of_stage in enumerate(self.shapes[1:], 1):
            noise = torch.randn(1, config.width, *bordered(of_stage), generator=fixed, device="cpu").to(device)
            self.register_buffer(f"fixed_noise_{stage}", noise, persistent=False)
        self.register_load_state_dict_post_hook(take_stage)

    @property
    def first_trained(self) -> int:
        """The first of the stages that train at the moment."""
        return max(0, self.stage - self.config.train_depth + 1)

    def rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """Stages below the newest learn more slowly, the lower the slower; those before `first_trained` are frozen."""
        scale, first = self.config.lr_scale, self.first_trained
        factors = [scale ** (self.stage - k) if first <= k <= self.stage else 0.0 for k in range(len(self.shapes))]
        head = [self.head, self.relation]
        groups = [([p for part in head for p in part.parameters()], factors[0])]
        groups += [(list(layers.parameters()), factor) for layers, factor in zip(self.bodies, factors, strict=True)]
        return [*groups, (list(self.tail.parameters()), 1.0)]

    @torch.no_grad()
    def grow(self, config: ConSinGANConfig) -> bool:
        """Begin the stages up to that of the configuration, each with the weights of the one before."""
        target = len(self.shapes) - 1 if config.stage is None else config.stage
        grows = self.stage < target
        while self.stage < target:
            self.stage += 1
            self.reached.fill_(self.stage)
            self.bodies[self.stage].load_state_dict(self.bodies[self.stage - 1].state_dict())
            self.amplitudes[self.stage] = 0
            error = self.reconstruction() - self.target()
            # Where the stages so far are wrong, there is something to vary.
            self.amplitudes[self.stage] = self.config.noise_amplitude * error.square().mean().sqrt()
        return grows

    def target(self, stage: int | None = None) -> Tensor:
        """Return the picture as a stage should make it, (1, C, h, w); the current stage by default."""
        shape = self.shapes[self.stage if stage is None else stage]
        if shape == self.shape:
            return self.picture
        smaller = F.interpolate(self.picture, shape, mode="bicubic", antialias=True)
        # A cubic kernel overshoots at edges.
        return smaller if self.config.standardise else smaller.clamp(-1, 1)

    def reconstruction(self) -> Tensor:
        """Return what the current stage makes of the smallest picture and of fixed noise, (1, C, h, w)."""
        return self._codes(self.target(0), [getattr(self, f"fixed_noise_{k}") for k in range(1, self.stage + 1)])

    def sample(self, z: Tensor) -> Tensor:
        """Draw codes in the current stage's size, (N, C, h, w)."""
        noise = [
            normal_rows(z.shape[0], self.config.width, *bordered(shape), device=z.device)
            for shape in self.shapes[1 : self.stage + 1]
        ]
        return self._codes(z.view(z.shape[0], self.picture.shape[1], *self.shapes[0]), noise)

    def _codes(self, start: Tensor, noise: Sequence[Tensor]) -> Tensor:
        # Zeros around the maps of the first stage, and noise around those of the others, tell where borders are.
        x = self.relation(self.head(F.pad(start, (1,) * 4).contiguous(memory_format=torch.channels_last)))
        x = self.bodies[0](F.pad(x, (DEPTH,) * 4))
        for stage, drawn in enumerate(noise, 1):
            if stage == self.first_trained:
                x = x.detach()  # the stages before it are frozen
            shape = self.shapes[stage]
            noisy = resized(x, bordered(shape)) + self.amplitudes[stage] * drawn
            x = resized(x, shape) + self.bodies[stage](noisy.to(x.dtype))
        codes: Tensor = self.bound(self.tail(F.pad(x, (1,) * 4)))
        return codes

    def _enlarged(self, codes: Tensor) -> Tensor:
        return codes if codes.shape[2:] == self.shape else resized(codes, self.shape)

    def forward(self, z: Tensor) -> Tensor:
        return self._enlarged(self.sample(z))

    def judged(self, z: Tensor) -> tuple[Tensor, ...]:
        codes = self.sample(z)
        # DDP wants every parameter of the generator in the graph, also those that do not train.
        idle = [parameter.sum() for parameters, factor in self.rates() if not factor for parameter in parameters]
        codes = codes + 0 * sum(idle)
        picture, made = (x.expand(len(z), -1, -1, -1) for x in (self.target(), self.reconstruction()))
        return picture, made, codes, self._enlarged(codes)


def condition(generator: Generator, store: LatentStore, config: ConSinGANConfig) -> None:
    """Show the generator its picture."""
    row = config.picture or 0
    latents = torch.from_numpy(store.read([row]))
    generator.picture.copy_(CodeScale.of(store, config.standardise).to_codes(latents.to(generator.picture)))


class Critic(nn.Sequential):
    """Codes (N, C, H, W) of any stage, or what is judged -> scores (N, (H - 10) (W - 10)), one for each patch.

    A new stage's critic starts with the weights of the last one's, so this is the same critic throughout.
    """

    def __init__(self, code_shape: CodeShape, config: ConSinGANConfig) -> None:
        widths = [code_shape[0], *[config.width] * (DEPTH + 1)]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [conv(inputs, outputs), nn.LeakyReLU(SLOPE)]
        # An offset of all scores has no effect on the loss.
        super().__init__(*layers, conv(config.width, 1, bias=False), nn.Flatten())

    def forward(self, judged: Judged) -> Tensor:
        scores: Tensor = super().forward(judged[2] if isinstance(judged, tuple) else judged)
        return scores


def pixelwise_gradient_penalty(critic: AnyCritic, real: Tensor, fake: Tensor) -> Tensor:
    """Return the mean over positions of (||d critic(y) / d y||_2 - 1)^2 with the norm over channels, unweighted.

    y lies at random between `real` and `fake` (N, C, H, W). SinGAN and ConSinGAN take this norm at each pixel, where
    WGAN-GP takes one of the whole picture; their weight of 0.1 belongs to it.
    """
    with full_precision(real):
        real, fake = at_least_fp32(real.detach()), at_least_fp32(fake.detach())
        mix = uniform_rows(len(real), 1, 1, 1, device=real.device).to(real)
        between = (mix * real + (1 - mix) * fake).requires_grad_(True)
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        return (gradient.norm(2, dim=1) - 1).square().mean()


class SingleImageLoss:
    """WGAN-GP on the stage's codes, and the squared error of the reconstruction."""

    def __init__(self, config: ConSinGANConfig) -> None:
        self.config = config

    def critic_loss(
        self, critic: AnyCritic, real: Tensor, fake: tuple[Tensor, ...], penalty_factor: float = 1.0
    ) -> LossAndLogs:
        """Return E[critic(fake)] - E[critic(picture)] + gp_weight penalty; the picture is the generator's own."""
        picture, _, codes, _ = fake
        scores_real, scores_fake = at_least_fp32(critic(picture)), at_least_fp32(critic(codes))
        loss, logs = scores_fake.mean() - scores_real.mean(), score_logs(scores_real, scores_fake)
        if penalty_factor:
            penalty = pixelwise_gradient_penalty(critic, picture, codes)
            loss = loss + penalty_factor * self.config.gp_weight * penalty
            logs["penalty/gp"] = penalty.detach()
        return loss, logs

    def generator_loss(self, critic: AnyCritic, real: Tensor, fake: tuple[Tensor, ...]) -> LossAndLogs:
        """Return -E[critic(fake)] + reconstruction_weight E[(reconstruction - picture)^2]."""
        picture, made, codes, _ = fake
        error = F.mse_loss(at_least_fp32(made), at_least_fp32(picture))
        loss = self.config.reconstruction_weight * error - at_least_fp32(critic(codes)).mean()
        return loss, {"loss/reconstruction": error.detach()}


def loss(config: ConSinGANConfig) -> SingleImageLoss:
    """Make the loss of the current stage."""
    return SingleImageLoss(config)
