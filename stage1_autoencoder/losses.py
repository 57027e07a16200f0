"""Losses of stage one (Liu, Yao, Ren, section 3.1); `train.py` weighs them against each other (eq. 3)."""

from torch import Tensor
from torch.nn import functional as F


def reconstruction_loss(reconstruction: Tensor, images: Tensor) -> Tensor:
    """Return the mean of |H(F(x)) - x| (eq. 1) for images (N, 3, H, W)."""
    # The paper does not say whether its norm is a sum or a mean; only with a mean is alpha independent of the size.
    return F.l1_loss(reconstruction, images)


def adversarial_loss(fake_logits: Tensor) -> Tensor:
    """Return E[-log D(H(F(x)))] (eq. 2), with D = sigmoid(logits) of any shape."""
    # -log sigmoid(x) is softplus(-x), which stays finite where the sigmoid rounds to 0.
    return F.softplus(-fake_logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return E[-log D(x)] + E[-log(1 - D(H(F(x))))] (eq. 4), with D = sigmoid(logits) of any shape."""
    # Eq. 4 is printed with a misplaced bracket; this is the loss that the text names.
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
