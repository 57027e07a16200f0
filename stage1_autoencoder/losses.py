"""Losses of stage one (Liu, Yao, Ren, section 3.1).

Eq. 4 is printed with a misplaced bracket; the non-saturating loss it names is used, on logits. The L1 of Eq. 1 is a
mean over all elements, so that its weight against the adversarial term does not depend on the image size.
"""

from torch import Tensor
from torch.nn import functional as F


def reconstruction_loss(reconstruction: Tensor, images: Tensor) -> Tensor:
    """Eq. 1: mean |H(F(x)) - x|."""
    return F.l1_loss(reconstruction, images)


def adversarial_loss(fake_logits: Tensor) -> Tensor:
    """Eq. 2: E[-log D(H(F(x)))] with D = sigmoid(logits)."""
    return F.softplus(-fake_logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Eq. 4: E[-log D(x)] + E[-log(1 - D(H(F(x))))] with D = sigmoid(logits)."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
