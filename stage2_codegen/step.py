"""The adversarial training step, the same for every variant: n_critic updates of the critic, then one of the generator.

The step owns everything that an update needs: networks and their average, optimisers, loss, augmentation, precision,
accumulation and compilation. Nothing in it waits for the device. All noise is a function of (seed, samples seen), for
any number of processes and parts.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from data.errors import UsageError
from data.seeds import INITIAL_WEIGHTS, UPDATES, derive_seed
from stage1_autoencoder.training.config import Precision
from stage1_autoencoder.training.precision import autocast
from stage1_autoencoder.training.updates import FiniteGuard, ema_beta, make_optimizer, set_rates, update_ema
from stage2_codegen.configs.base import VariantConfig
from stage2_codegen.frozen.context import Context
from stage2_codegen.losses import Judge, LossAndLogs
from stage2_codegen.modules import shared_weights
from stage2_codegen.rank_noise import normal_rows, part_of_batch
from stage2_codegen.transfer import set_training, trained_parameters
from stage2_codegen.variants.conditional import build_generator
from stage2_codegen.variants.contract import Batch, CodeGenerator, CodeShape, Judged, JudgedBy, Variant


class AdversarialStep:
    """Networks and optimisers, and the update that takes them one step further.

    `context` is on the accelerator's device. With `accumulate` K a batch goes through in K parts, in a K-th of the
    memory and with the same gradients, except that whatever looks at a whole batch (moments of batch normalisation,
    power iterations of spectral normalisation, neighbours of a drift) then looks at each part. With `compiled`, the
    generator is compiled, and the critic where it judges for the generator. Raises `UsageError` where torch.compile
    does not work.
    """

    def __init__(
        self,
        variant: Variant,
        model: VariantConfig,
        code_shape: CodeShape,
        context: Context,
        accelerator: Accelerator,
        *,
        seed: int = 0,
        precision: Precision = "fp32",
        accumulate: int = 1,
        compiled: bool = False,
        frozen_layers: int = 0,
    ) -> None:
        self.variant, self.model = variant.given(context), model
        self.code_shape, self.accelerator = code_shape, accelerator
        self.seed, self.precision, self.accumulate = seed, precision, accumulate
        self.lr_factor = 1.0
        self.logs: dict[str, Tensor] = {}
        self.now = self.variant.schedule(model, 0.0)
        self.loss = self.variant.loss(self.now)
        device = accelerator.device
        self.view = variant.view(model, context)
        self._kept: tuple[Judged, Judged] | None = None  # as the critic has just seen them, for the generator

        self.G, self.critic = self._initial_networks()
        self._trained = trained_parameters(self.critic, frozen_layers)
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        self.networks: dict[str, nn.Module] = {"G": self.G, "critic": self.critic, "G_ema": self.G_ema}
        for network in self.networks.values():
            # Convolutions are fastest in this layout; their weights decide the layout of the maps.
            network.to(device).to(memory_format=torch.channels_last)
        groups = [{"params": group} for group, _ in self.G.rates()]
        self.optimizers = {
            "opt_G": make_optimizer(model.optimizer, groups, model.lr),
            "opt_critic": make_optimizer(model.optimizer, self._trained, model.critic_lr),
        }
        self.guard = FiniteGuard(self.optimizers.values(), device)
        self._shared_G, self._shared_critic = accelerator.prepare(JudgedBy(self.G), self.critic)
        self._draw, self._judge = self._shared_G, self._shared_critic
        if compiled:  # not the critic's own update, since torch.compile cannot take gradients of gradients
            check_compiler(device)
            self._draw, self._judge = torch.compile(self._shared_G), torch.compile(self._shared_critic)

    def _initial_networks(self) -> tuple[CodeGenerator, nn.Module]:
        torch.manual_seed(derive_seed(self.seed, INITIAL_WEIGHTS))  # the same networks on every rank
        begin = self.variant.schedule(self.model, 0.0)
        return build_generator(self.variant, self.code_shape, begin), self.variant.Critic(self.code_shape, begin)

    def restart(self) -> None:
        """Go back to the initial weights, and clear the state of the optimisers."""
        G, critic = self._initial_networks()
        self.G.load_state_dict(G.state_dict())
        self.G_ema.load_state_dict(G.state_dict())
        self.critic.load_state_dict(critic.state_dict())
        self._forget()

    def _forget(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.state.clear()

    def __call__(self, reals: Iterator[Batch], nimg: int) -> None:
        """Train on this rank's next `n_critic` batches of real codes, after `nimg` samples over all ranks.

        `logs` then holds the means over the parts, on this rank, of the last update that computed them.
        """
        self._follow_schedule(nimg)
        set_training(self._trained, True)
        for i in range(self.model.n_critic):
            real = next(reals)
            batch = len(real.codes) * self.accelerator.num_processes
            penalty_factor = self._penalty_factor(nimg // batch * self.model.n_critic + i)
            is_last = i == self.model.n_critic - 1
            objective = partial(self._critic_loss, penalty_factor, self.now.one_batch_of_fakes and is_last)
            seed = derive_seed(self.seed, nimg, UPDATES + i)
            self.logs |= self._backward("loss/critic", objective, self._shared_critic, real, seed)
            self.guard.update(self.optimizers["opt_critic"])
        set_training(self._trained, False)  # spares its weights' gradients in the generator's update
        # One batch of fakes keeps the seed of the critic's last update: parts drawn again are then the same samples.
        if not self.now.one_batch_of_fakes:
            seed = derive_seed(self.seed, nimg, UPDATES + self.model.n_critic)
        self.logs |= self._backward("loss/g", self._generator_loss, self._shared_G, real, seed)
        self.guard.update(self.optimizers["opt_G"])
        update_ema(self.G_ema, self.G, ema_beta(batch, self.now.ema_halflife_kimg, nimg + batch))

    def _follow_schedule(self, nimg: int) -> None:
        if (scheduled := self.variant.schedule(self.model, nimg / 1000)) != self.now:
            self.now, self.loss = scheduled, self.variant.loss(scheduled)
        now = self.now
        grown = [generator.grow(now) for generator in (self.G, self.G_ema)]
        if any(grown):
            self._forget()
        set_rates(self.optimizers["opt_G"], self.lr_factor * now.lr, now.beta1, now.beta2)
        for group, (_, factor) in zip(self.optimizers["opt_G"].param_groups, self.G.rates(), strict=True):
            group["lr"] *= factor
        set_rates(self.optimizers["opt_critic"], self.lr_factor * now.critic_lr, now.beta1, now.beta2)

    def _penalty_factor(self, update: int) -> float:
        # Lazy regularisation: computed at one update in `every`, it weighs that many times as much there.
        every = self.now.penalty_period
        return every if update % every == 0 else 0

    def _critic_loss(self, penalty_factor: float, is_shared: bool, real: Batch) -> LossAndLogs:
        # Parts are drawn again by their seed, since keeping their graphs would fill the memory.
        keeps = is_shared and self.accumulate == 1
        with torch.set_grad_enabled(keeps):
            seen_real, seen_fake = self._see(real)
        if keeps:
            self._kept = seen_real, seen_fake
        critic = Judge(self._shared_critic, real.classes)
        return self.loss.critic_loss(critic, seen_real, detached(seen_fake), penalty_factor)

    def _generator_loss(self, real: Batch) -> LossAndLogs:
        (seen_real, seen_fake), self._kept = self._kept or self._see(real), None
        return self.loss.generator_loss(Judge(self._judge, real.classes), seen_real, seen_fake)

    def _see(self, real: Batch) -> tuple[Judged, Judged]:
        """Real codes, and as many newly generated ones of the same classes, as the critic sees them."""
        noise = normal_rows(len(real.codes), self.G.noise_dim, device=self.accelerator.device)
        fake = self._draw(self.G.of_classes(noise, real.classes))
        return self.view(real.codes), self.view(fake)

    def _backward(
        self, name: str, objective: Callable[[Batch], LossAndLogs], shared: nn.Module, real: Batch, seed: int
    ) -> dict[str, Tensor]:
        """Compute gradients of the mean of `objective` over the parts of `real`; return the means of its logs."""
        parts, totals = self.accumulate, dict[str, Tensor]()
        for index, part in enumerate(real.parts(parts)):
            torch.manual_seed(seed)  # the same for all parts and ranks: each takes its own rows of the batch's noise
            # Ranks share their gradients once, with the last part.
            shares = nullcontext() if index == parts - 1 else self.accelerator.no_sync(shared)
            with part_of_batch(index, parts), shares:
                with shared_weights(self.G, self.critic), autocast(self.accelerator, self.precision):
                    loss, logs = objective(part)
                self.accelerator.backward(loss / parts)
            for key, value in {name: loss.detach(), **logs}.items():
                totals[key] = totals[key] + value / parts if key in totals else value / parts
        return totals


def detached(judged: Judged) -> Judged:
    """Return what is judged without its gradients."""
    return tuple(x.detach() for x in judged) if isinstance(judged, tuple) else judged.detach()


def check_compiler(device: torch.device) -> None:
    """Raise `UsageError` when torch.compile does not work for this device on this machine."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2, device=device))
    except Exception as error:  # torch has its own kinds for a missing C++ compiler, Triton, Python headers, ...
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"--compile: cannot compile here ({reason})", "install a C++ compiler, or leave it out"
        ) from error
