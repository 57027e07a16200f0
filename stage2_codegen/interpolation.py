"""Ways between two points that a generator draws from."""

import torch
from torch import Tensor


def slerp(start: Tensor, stop: Tensor, share: Tensor) -> Tensor:
    """Points `share` (n,) of the way from the rows of `start` to those of `stop`, (n, dim), at equal angles.

    Shoemake, "Animating rotation with quaternion curves", 1985. Vectors of noise lie near a sphere, whose inside, which
    a straight line crosses, a generator has never seen. Parallel rows are joined by that line.
    """
    share = share.to(start)[:, None]
    cosine = (start * stop).sum(1, keepdim=True) / (start.norm(dim=1, keepdim=True) * stop.norm(dim=1, keepdim=True))
    angle = cosine.clamp(-1, 1).acos()
    sine = angle.sin()
    on_sphere = (((1 - share) * angle).sin() * start + (share * angle).sin() * stop) / sine.clamp(min=1e-6)
    return torch.where(sine < 1e-6, torch.lerp(start, stop, share), on_sphere)
