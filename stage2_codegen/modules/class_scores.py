"""The last layer of a critic that knows the class of each sample it judges."""

from collections.abc import Callable

from torch import Tensor, nn

MakeLayer = Callable[[int], nn.Module]  # outputs -> a layer with that many


class ClassScores(nn.Module):
    """Scores of samples as members of their class: psi(x) + V_y(x) for features x (N, C, ...) and classes y (N,).

    This is the projection of Miyato and Koyama, "cGANs with Projection Discriminator", eq. 3, where V_y(x) is the inner
    product of the features with a vector of the class. With a linear layer scores are (N, 1), with a convolution there
    is one for every place, (N, 1, h, w).
    """

    def __init__(self, make: MakeLayer, classes: int) -> None:
        super().__init__()
        self.psi = make(1)
        # The vectors of all classes are the weights of one more layer of the same kind, which also serves convolutions.
        self.projection = make(classes)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        by_class = self.projection(x)
        y = y.repeat(len(x) // len(y))  # a penalty may judge the batch more than once in a call
        column = y.view(-1, 1, *[1] * (by_class.dim() - 2)).expand(-1, 1, *by_class.shape[2:])
        return self.psi(x) + by_class.gather(1, column)


def last_layer(make: MakeLayer, classes: int) -> nn.Module:
    """Make a layer with one score or, where there are classes, `ClassScores`."""
    return ClassScores(make, classes) if classes else make(1)


def scored(layer: nn.Module, x: Tensor, classes: Tensor | None) -> Tensor:
    """Apply a `last_layer` to features (N, ...) and, where it was made for them, classes (N,)."""
    scores: Tensor = layer(x) if classes is None else layer(x, classes)
    return scores
