"""The last layer of a critic that is told the class of what it judges."""

from collections.abc import Callable

from torch import Tensor, nn

MakeLayer = Callable[[int], nn.Module]  # outputs -> a layer with that many


class ClassScores(nn.Module):
    """Scores of a sample as one of its class: psi(x) + V_y(x) for features x (N, C, ...) and classes y (N,).

    That is the projection of Miyato and Koyama, "cGANs with Projection Discriminator", eq. 3, where V_y(x) is the
    inner product of the features with a vector of the class. Both terms are layers of one kind, so that a convolution
    scores every place, (N, 1, h, w), as a linear layer does the sample, (N, 1).
    """

    def __init__(self, make: MakeLayer, classes: int) -> None:
        super().__init__()
        self.psi = make(1)
        self.projection = make(classes)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        by_class = self.projection(x)
        y = y.repeat(len(x) // len(y))  # a penalty may judge the batch more than once in a call
        column = y.view(-1, 1, *[1] * (by_class.dim() - 2)).expand(-1, 1, *by_class.shape[2:])
        return self.psi(x) + by_class.gather(1, column)


def last_layer(make: MakeLayer, classes: int) -> nn.Module:
    """A layer of one score or, with classes, one of a score as the sample's class."""
    return ClassScores(make, classes) if classes else make(1)


def scored(layer: nn.Module, x: Tensor, classes: Tensor | None) -> Tensor:
    """What a `last_layer` gives for features (N, ...) and, where it was made for them, classes (N,)."""
    scores: Tensor = layer(x) if classes is None else layer(x, classes)
    return scores
