"""Further tasks of FastGAN's critic on real samples, which the paper compares with reconstruction (its table 6).

    contrastive   find a sample among those of its batch by another view of it (setting a)
    aspect-ratio  tell the shape of a part that was stretched to the shape of the sample (setting b)
    rotation      tell by how many quarter turns a sample is turned (Chen et al., "Self-Supervised GANs via Auxiliary
                  Rotation Loss")

The paper names the tasks and no more. Decided here: for the first, "each real image as a unique class" is done within a
batch, since a class for each picture of a data set would need as many outputs. For the second, a part is cut out and
stretched, because pictures are cropped to the shape of the codes and not squeezed.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stage2_codegen.configs.choices import TaskName
from stage2_codegen.fp32 import at_least_fp32
from stage2_codegen.losses import AnyCritic, Loss, LossAndLogs
from stage2_codegen.rank_noise import uniform_rows
from stage2_codegen.variants.contract import Judged

OUTPUTS: Mapping[TaskName, int] = {"contrastive": 128, "aspect-ratio": 1, "rotation": 4}
TEMPERATURE = 0.1  # of the similarities between two views

Read = Callable[[Tensor], Tensor]  # codes (N, C, H, W) -> the critic's answers (N, outputs)
View = Callable[[Tensor], Tensor]


class TaskHead(nn.Sequential):
    """Maps (N, inputs, H, W) -> answers (N, outputs) to a task."""

    def __init__(self, inputs: int, task: TaskName) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, OUTPUTS[task]))


def contrastive(read: Read, real: Tensor, view: View) -> Tensor:
    """Return the cross-entropy of finding each sample by its view, among all samples of the batch."""
    samples, views = (F.normalize(at_least_fp32(read(codes))) for codes in (real, view(real)))
    return F.cross_entropy(views @ samples.T / TEMPERATURE, torch.arange(len(real), device=real.device))


def aspect_ratio(read: Read, real: Tensor, view: View) -> Tensor:
    """Return the squared error of log2(width / height) of a part that lies in the middle, between -1 and 1."""
    wanted = 2 * uniform_rows(len(real), device=real.device) - 1
    scale = torch.zeros(len(real), 2, 3, device=real.device)
    scale[:, 0, 0], scale[:, 1, 1] = wanted.clamp(max=0).exp2(), (-wanted).clamp(max=0).exp2()
    grid = F.affine_grid(scale, list(real.shape), align_corners=False)
    stretched = F.grid_sample(real.float(), grid, padding_mode="border", align_corners=False)
    return F.mse_loss(at_least_fp32(read(stretched))[:, 0], wanted)


def rotation(read: Read, real: Tensor, view: View) -> Tensor:
    """Return the cross-entropy of the number of quarter turns, which is drawn for each sample."""
    turns = (4 * uniform_rows(len(real), device=real.device)).long().clamp(max=3)
    turned = torch.stack([real.rot90(turn, (2, 3)) for turn in range(4)])[turns, torch.arange(len(real))]
    return F.cross_entropy(at_least_fp32(read(turned)), turns)


TASKS: Mapping[TaskName, Callable[[Read, Tensor, View], Tensor]] = {
    "contrastive": contrastive,
    "aspect-ratio": aspect_ratio,
    "rotation": rotation,
}


class WithTasks:
    """A loss, and for the critic the losses of tasks on real samples, each with the same weight."""

    def __init__(self, inner: Loss, tasks: Sequence[TaskName], weight: float, view: View) -> None:
        self.inner, self.tasks, self.weight, self.view = inner, tasks, weight, view

    def critic_loss(self, critic: AnyCritic, real: Tensor, fake: Judged, penalty_factor: float = 1.0) -> LossAndLogs:
        loss, logs = self.inner.critic_loss(critic, real, fake, penalty_factor)
        for task in self.tasks:

            def read(codes: Tensor, task: TaskName = task) -> Tensor:
                answers: Tensor = critic(codes, task=task)
                return answers

            own = TASKS[task](read, real, self.view)
            loss, logs = loss + self.weight * own, {**logs, f"loss/{task}": own.detach()}
        return loss, logs

    def generator_loss(self, critic: AnyCritic, real: Tensor, fake: Judged) -> LossAndLogs:
        return self.inner.generator_loss(critic, real, fake)
