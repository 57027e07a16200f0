"""The non-local block, embedded Gaussian (Wang et al., "Non-local Neural Networks", section 3)."""

from torch import Tensor, nn

from stage2_codegen.modules.self_attention import attention


class NonLocal(nn.Module):
    """x + out(y), y_i = sum over j of softmax_j(query_i . key_j) value_j (eqs. 4 and 6), for x (N, C, H, W).

    The block starts as the identity. Never put spectral normalisation on `out`: a weight of zero has no direction.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)  # section 3.3: half the channels halve the work
        self.query = nn.Conv2d(channels, inner, 1)  # theta
        self.key = nn.Conv2d(channels, inner, 1)  # phi
        self.value = nn.Conv2d(channels, inner, 1)  # g
        # The paper starts from the identity in two ways: W_z is zero (section 3.3), or a batch normalisation after it
        # has zero weight (section 4.1). Batch statistics would tie the samples of a critic to each other, which a
        # gradient penalty does not allow; hence the former.
        self.out = nn.Conv2d(inner, channels, 1)  # W_z
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(attention(self.query(x), self.key(x), self.value(x)))
