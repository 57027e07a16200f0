"""GCA: graph convolution over the positions of a map (Peng et al., "Leveraging GANs via Non-local Features", sect. 3).

Two shapes are printed wrong and read as the only ones that fit: W_j, "C/8 x 1", maps C channels to N and J = (W_j x)^T
is node x feature; M is W_m x, as the text above eq. 1 has it, not W_j x. The graph convolution has no activation
(eq. 2). Not published: biases, here none, and how the adjacency is binarised, here where an edge has more than its even
share 1 / N.
"""

import torch
from torch import Tensor, nn

from data.limits import check_choice
from stage2_codegen.configs.choices import Adjacency, NodeFeatures
from stage2_codegen.fp32 import full_precision
from stage2_codegen.modules.self_attention import check_size, positions, relations


def normalised(adjacency: Tensor) -> Tensor:
    """D^-1/2 (A + I) D^-1/2 with D the row sums of A + I (eq. 2; Kipf and Welling, eq. 2); (..., N, N).

    Written in full although rows of a softmax make D = 2 I: those of a binary adjacency do not.
    """
    linked = adjacency + torch.eye(adjacency.shape[-1], dtype=adjacency.dtype, device=adjacency.device)
    scale = linked.sum(-1).rsqrt()  # rows are never empty, thanks to I
    return scale[..., :, None] * linked * scale[..., None, :]


class GraphConvolution(nn.Module):
    """x + alpha W_v(M Y), Y = D^-1/2 (A + I) D^-1/2 J Theta (eqs. 2 to 5); alpha starts at 0.

    A_ji = softmax over i of query_i . key_j (eq. 1, f is `query` and g is `key`): the row of position j. Binary,
    `straight_through` passes the gradient of the soft A to query and key; without it they get zeros. `node_features`
    "conv" gives each node N features, "diag" one number on the diagonal of J (for maps on which the C N weights of W_j
    are too many). Theta and W_j belong to one map size; memory grows with the fourth power of the side and time with
    the sixth, so keep to maps like the paper's 8 x 8. Plain matrix products: fit for critics under a gradient penalty.
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
        self.query = nn.Conv2d(channels, inner, 1, bias=False)  # W_f
        self.key = nn.Conv2d(channels, inner, 1, bias=False)  # W_g
        self.node = nn.Conv2d(channels, count if node_features == "conv" else 1, 1, bias=False)  # W_j
        self.mix = nn.Conv2d(channels, channels, 1, bias=False)  # W_m
        self.theta = nn.Parameter(nn.init.xavier_uniform_(torch.empty(count, count)))
        self.out = nn.Conv2d(channels, channels, 1, bias=False)  # W_v, not zero: with alpha 0 nothing would ever move
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        check_size(x, self.size, "GraphConvolution")
        query, key, node, mixed = (positions(conv(x)) for conv in (self.query, self.key, self.node, self.mix))
        with full_precision(x):
            graph = normalised(self._edges(relations(key, query)))  # (B, N, N)
            nodes = graph @ node.mT if self.node_features == "conv" else graph * node  # (A + I) J, normalised
            z = mixed @ (nodes @ self.theta)  # eq. 3, (B, C, N)
        return x + self.alpha * self.out(z.to(x.dtype).unflatten(2, x.shape[2:]))

    def _edges(self, soft: Tensor) -> Tensor:
        if self.adjacency == "soft":
            return soft
        binary = (soft > 1 / soft.shape[-1]).to(soft.dtype)
        return binary + self.straight_through * (soft - soft.detach())
