"""The range of latents: a tanh bends what an encoder computes into [-1, 1], and a decoder bends it back."""

import torch
from torch import Tensor

CODE_DEVIATION = 0.5  # of each channel before the tanh: it uses most of the range and saturates little
BOUND = 0.99  # atanh is steep beyond it, so the decoder would amplify any noise on the latents there


def unbounded(latents: Tensor) -> Tensor:
    """Undo the encoder's last tanh for latents of any shape in [-1, 1]; those beyond `BOUND` are clamped to it."""
    return torch.atanh(latents.clamp(-BOUND, BOUND))
