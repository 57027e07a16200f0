"""Ways from one z of a generator to another."""

import torch
from torch import Tensor


def slerp(start: Tensor, stop: Tensor, share: Tensor) -> Tensor:
    """Return points (n, dim) at `share` (n,) of the way along the arc from rows of `start` to rows of `stop`.

    See Shoemake, "Animating rotation with quaternion curves", 1985. Parallel rows are joined by a straight line.
    """
    # Vectors of noise lie near a sphere. A straight line crosses its inside, which a generator has never seen.
    share = share.to(start)[:, None]
    cosine = (start * stop).sum(1, keepdim=True) / (start.norm(dim=1, keepdim=True) * stop.norm(dim=1, keepdim=True))
    angle = cosine.clamp(-1, 1).acos()
    sine = angle.sin()
    on_sphere = (((1 - share) * angle).sin() * start + (share * angle).sin() * stop) / sine.clamp(min=1e-6)
    return torch.where(sine < 1e-6, torch.lerp(start, stop, share), on_sphere)
