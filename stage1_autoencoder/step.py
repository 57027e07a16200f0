"""The training step of the autoencoder: an update of the autoencoder, then one of the discriminator that judges it."""

import copy

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from data.images import to_float
from data.seeds import INITIAL_WEIGHTS, derive_seed
from stage1_autoencoder.configs import TrainAEConfig
from stage1_autoencoder.crops import CodeNoise, RandomCrops
from stage1_autoencoder.losses import adversarial_loss, discriminator_loss, reconstruction_loss
from stage1_autoencoder.networks import Autoencoder, Discriminator
from stage1_autoencoder.training.precision import autocast
from stage1_autoencoder.training.updates import FiniteGuard, ema_beta, set_lr, update_ema

# The norm of the autoencoder's gradient is 0.5 most of the time. Without this limit a few steps in a row with several
# times that have sent all latents into saturation, out of which no gradient leads.
MAX_GRADIENT_NORM = 1.0
BALANCED_ON = 32  # crops on which the initial scales of the latents' channels are measured


class AutoencoderStep:
    """Networks and optimisers, and the update that takes them one step further.

    The networks are the same on every rank. They start from `initial` or, without it, from random weights whose
    latents have been balanced on a few crops. `share` are the rows of a batch that this rank trains on.
    """

    def __init__(
        self,
        config: TrainAEConfig,
        crops: RandomCrops,
        initial: Autoencoder | None,
        accelerator: Accelerator,
        share: slice,
    ) -> None:
        self.config, self.accelerator, self.share = config, accelerator, share
        device = accelerator.device
        torch.manual_seed(derive_seed(config.seed, INITIAL_WEIGHTS))
        self.autoencoder = Autoencoder(config.factor, config.code_channels, config.width)
        if initial:
            self.autoencoder.load_state_dict(initial.state_dict())
        else:
            self.autoencoder.balance(to_float(torch.from_numpy(crops.batch(0, BALANCED_ON))))
        self.discriminator = Discriminator(config.discriminator_width)
        self.ema = copy.deepcopy(self.autoencoder).requires_grad_(False)
        self.networks: dict[str, nn.Module] = {
            "autoencoder": self.autoencoder,
            "discriminator": self.discriminator,
            "ema": self.ema,
        }
        for network in self.networks.values():
            network.to(device).to(memory_format=torch.channels_last)
        adam, lr = torch.optim.Adam, config.lr
        self.optimizers = {
            "opt_autoencoder": adam(self.autoencoder.parameters(), lr, (0.9, 0.999), fused=True),
            "opt_discriminator": adam(self.discriminator.parameters(), lr / 2, (0.5, 0.999), fused=True),
        }
        self.guard = FiniteGuard(self.optimizers.values(), device)
        self._shared_autoencoder, self._shared_discriminator = accelerator.prepare(self.autoencoder, self.discriminator)
        side = config.size // config.factor
        self._noises = CodeNoise((config.code_channels, side, side), config.code_noise, config.seed)

    def __call__(self, images_u8: Tensor, nimg: int) -> dict[str, Tensor]:
        """Train on this rank's rows of a batch, uint8 (n, 3, size, size), after `nimg` crops; return its losses."""
        config, device = self.config, self.accelerator.device
        real = to_float(images_u8.to(device)).contiguous(memory_format=torch.channels_last)
        rise, fall = lr_shares(config, nimg)
        set_lr(self.optimizers["opt_autoencoder"], config.lr * min(rise, fall))
        set_lr(self.optimizers["opt_discriminator"], config.lr / 2 * fall)
        is_adversarial = config.adversarial_weight > 0 and nimg >= config.warmup_kimg * 1000

        self.discriminator.requires_grad_(False)
        logs, fake = self._update_autoencoder(real, nimg, is_adversarial)
        if is_adversarial:
            self.discriminator.requires_grad_(True)
            logs["loss/discriminator"] = self._update_discriminator(real, fake)
        beta = ema_beta(config.batch_size, config.ema_halflife_kimg, nimg + config.batch_size)
        update_ema(self.ema, self.autoencoder, beta)
        return logs

    def _update_autoencoder(self, real: Tensor, nimg: int, is_adversarial: bool) -> tuple[dict[str, Tensor], Tensor]:
        config, device = self.config, self.accelerator.device
        start, end = nimg + self.share.start, nimg + self.share.stop
        mirrored = torch.arange(start, end, device=device) % 2 == 1 if config.mirror else None
        noise = torch.from_numpy(self._noises.batch(start, end - start)).to(device) if config.code_noise else None
        logs: dict[str, Tensor] = {}
        with autocast(self.accelerator, config.precision):
            fake = self._shared_autoencoder(real, noise, mirrored)
            loss = logs["loss/l1"] = reconstruction_loss(fake.float(), real)
            if is_adversarial:
                logs["loss/adversarial"] = adversarial_loss(self._shared_discriminator(fake).float())
                loss = loss + config.adversarial_weight * logs["loss/adversarial"]
        self.accelerator.backward(loss)
        nn.utils.clip_grad_norm_(self.autoencoder.parameters(), MAX_GRADIENT_NORM)
        self.guard.update(self.optimizers["opt_autoencoder"])
        return logs, fake.detach()

    def _update_discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        critic = self._shared_discriminator
        with autocast(self.accelerator, self.config.precision):
            loss = discriminator_loss(critic(real).float(), critic(fake).float())
        self.accelerator.backward(loss)
        self.guard.update(self.optimizers["opt_discriminator"])
        return loss


def lr_shares(config: TrainAEConfig, nimg: int) -> tuple[float, float]:
    """Return two factors of the learning rate at `nimg`: that of the rise at the start, and of the fall at the end."""
    ramp, decay = (max(kimg * 1000, config.batch_size) for kimg in (config.lr_ramp_kimg, config.lr_decay_kimg))
    return min(1.0, (nimg + config.batch_size) / ramp), min(1.0, (config.total_nimg - nimg) / decay)
