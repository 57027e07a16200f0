"""The losses equal the paper's -log forms and stay finite where those overflow."""

import numpy as np
import torch

from stage1_autoencoder.losses import adversarial_loss, discriminator_loss, reconstruction_loss

REAL = torch.linspace(-6, 6, 12, dtype=torch.float64).view(2, 1, 2, 3)
FAKE = torch.linspace(5, -7, 12, dtype=torch.float64).view(2, 1, 2, 3)


def sigmoid(logits: torch.Tensor) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.numpy()))


def test_equal_to_the_log_forms() -> None:
    np.testing.assert_allclose(adversarial_loss(FAKE), np.mean(-np.log(sigmoid(FAKE))), rtol=1e-12)
    expected = np.mean(-np.log(sigmoid(REAL))) + np.mean(-np.log(1 - sigmoid(FAKE)))
    np.testing.assert_allclose(discriminator_loss(REAL, FAKE), expected, rtol=1e-12)


def test_finite_with_finite_gradients_at_100() -> None:
    for real, fake in ((100.0, -100.0), (-100.0, 100.0)):
        logits = torch.tensor([real, fake], requires_grad=True)
        loss = discriminator_loss(logits[:1], logits[1:]) + adversarial_loss(logits[1:])
        loss.backward()
        assert torch.isfinite(loss)
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()
    assert discriminator_loss(torch.tensor([-100.0]), torch.tensor([100.0])) == 200


def test_reconstruction_is_the_mean_over_all_elements() -> None:
    x, y = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    y[0, 0, 0, 0] = -3.0
    assert reconstruction_loss(x, y).item() == np.float32(3 / 96)
