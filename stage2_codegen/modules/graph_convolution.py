"""GCA: graph convolution over the positions of a map (Peng et al., "Leveraging GANs via Non-local Features", sect. 3).

Two shapes are misprinted, and the paper does not say how the adjacency is binarised; see the lines below.
"""

import torch
from torch import Tensor, nn

from data.limits import check_choice
from stage2_codegen.configs.choices import Adjacency, NodeFeatures
from stage2_codegen.fp32 import full_precision
from stage2_codegen.modules.self_attention import check_size, positions, relations


def normalised(adjacency: Tensor) -> Tensor:
    """Return D^-1/2 (A + I) D^-1/2 with D the row sums of A + I (eq. 2; Kipf and Welling, eq. 2); (..., N, N)."""
    # Rows of a softmax make D = 2 I, and this half of A + I. A binary adjacency needs the formula in full.
    linked = adjacency + torch.eye(adjacency.shape[-1], dtype=adjacency.dtype, device=adjacency.device)
    scale = linked.sum(-1).rsqrt()  # rows are never empty, thanks to I
    return scale[..., :, None] * linked * scale[..., None, :]


class GraphConvolution(nn.Module):
    """x + alpha W_v(M Y), Y = D^-1/2 (A + I) D^-1/2 J Theta (eqs. 2 to 5), for x (N, C, size, size); same shape.

    A_ji = softmax over i of query_i . key_j (eq. 1, where `query` is f and `key` is g) is the row of position j. A
    binary A has edges where the soft one exceeds 1 / N; with `straight_through` query and key get the gradient of the
    soft A. `node_features` "conv" gives each node N features, "diag" one number on the diagonal of J. Memory grows with
    the fourth power of the side and time with the sixth, so maps should be small, like the paper's 8 x 8. Critics under
    a gradient penalty can have it: it consists of plain matrix products.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        adjacency: Adjacency = "soft",
        node_features: NodeFeatures = "conv",
        straight_through: bool = True,
    ) -> None:
        super().__init__()
        check_choice("adjacency", adjacency, Adjacency)
        check_choice("node_features", node_features, NodeFeatures)
        self.size, self.adjacency, self.node_features = size, adjacency, node_features
        self.straight_through = straight_through
        count, inner = size * size, max(channels // 8, 1)
        # Eqs. 1 to 4 have no biases.
        self.query = nn.Conv2d(channels, inner, 1, bias=False)  # W_f
        self.key = nn.Conv2d(channels, inner, 1, bias=False)  # W_g
        # W_j is printed as C/8 x 1; only C channels to N fits eq. 2, with J = (W_j x)^T as node x feature. Its C N
        # weights are many on larger maps, for which there is "diag".
        self.node = nn.Conv2d(channels, count if node_features == "conv" else 1, 1, bias=False)  # W_j
        self.mix = nn.Conv2d(channels, channels, 1, bias=False)  # W_m; eq. 3 prints W_j, the text above eq. 1 this
        # Theta is N x N, so the module belongs to one size of map.
        self.theta = nn.Parameter(nn.init.xavier_uniform_(torch.empty(count, count)))
        self.out = nn.Conv2d(channels, channels, 1, bias=False)  # W_v; if it were 0 beside alpha, neither could move
        self.alpha = nn.Parameter(torch.zeros(()))  # eq. 5: training starts from the network without the module

    def forward(self, x: Tensor) -> Tensor:
        check_size(x, self.size, "GraphConvolution")
        query, key, node, mixed = (positions(conv(x)) for conv in (self.query, self.key, self.node, self.mix))
        with full_precision(x):
            graph = normalised(self._edges(relations(key, query)))  # (B, N, N)
            nodes = graph @ node.mT if self.node_features == "conv" else graph * node  # (A + I) J, normalised
            z = mixed @ (nodes @ self.theta)  # eq. 3, (B, C, N); eq. 2 has no activation before it
        return x + self.alpha * self.out(z.to(x.dtype).unflatten(2, x.shape[2:]))

    def _edges(self, soft: Tensor) -> Tensor:
        if self.adjacency == "soft":
            return soft
        binary = (soft > 1 / soft.shape[-1]).to(soft.dtype)  # edges of more than an even share
        # A threshold has no gradient; that of the soft A lets query and key learn nevertheless.
        return binary + self.straight_through * (soft - soft.detach())
