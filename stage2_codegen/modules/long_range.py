"""The long-range module ("Lightweight Long-Range Generative Adversarial Networks", section 3.2).

With n = (W_1 h)^T (W_2 h), alpha = softmax of its rows (eq. 2) and w one learned weight for each position, the paper
repeats w in N columns, w', and has w_n = alpha^T x w', h_s = h w_n. Its equations are `relation="matmul"`. Its prose
(w_n[i, j] is "scaled by the extent of relations between i and j") and figure 1 fit an elementwise product instead:
`relation="pairwise"`. The same holds across channels (eq. 3).
"""

from typing import Any

import torch
from torch import Tensor, nn

from data.limits import check_choice
from stage2_codegen.configs.choices import Merge, Relation
from stage2_codegen.fp32 import full_precision
from stage2_codegen.modules.self_attention import attention, check_size, positions, recomputed, relations, row_blocks


class PoolingWeights(torch.autograd.Function):
    """u = alpha^T w: query, key (B, D, N) and w (N,) -> u (B, N), in the memory of a block of rows of alpha.

    It can be differentiated twice, also block by block.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, weight)
        # Rows of the softmax are complete inside a block, so one pass is enough.
        pooled = (weight[rows] @ relations(query[..., rows], key) for rows in row_blocks(query))
        return sum(pooled, torch.zeros_like(key[:, 0]))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Written out, because it needs two matrix products beside the logits, where autograd would form one more N x N
        # gradient. Each block can be recomputed, so a gradient of this gradient keeps no N x N matrix either.
        (query, key, weight), (grad,) = ctx.saved_tensors, grads
        # Written in place: small results kept between the blocks would pin the memory of each block that is freed.
        by_query, by_key, by_weight = torch.empty_like(query), torch.zeros_like(key), torch.empty_like(weight)
        with full_precision(grad):
            for rows in row_blocks(query):
                block = query[..., rows], key, weight[rows], grad
                by_query[..., rows], of_key, by_weight[rows] = recomputed(_block_gradients, *block)
                by_key = by_key + of_key
        return by_query, by_key, by_weight


def _block_gradients(query: Tensor, key: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of grad . u by the query of a block (B, D, J), by the whole key (B, D, N) and by its weights (J,).

    d/dw_j = (alpha grad)_j, and d/dn_ji = w_j alpha_ji (grad_i - (alpha grad)_j): the softmax's own derivative.
    """
    alpha = relations(query, key)  # (B, J, N)
    pooled = alpha @ grad.unsqueeze(-1)  # (B, J, 1)
    slope = (grad.unsqueeze(1) - pooled).mul_(alpha)
    return weight * (key @ slope.mT), (weight * query) @ slope, pooled.sum((0, 2))


class SpatialLongRange(nn.Module):
    """h (N, C, S, S) -> h_s of the same shape; for "matmul" a broadcast view, the same vector at every position.

    `spatial_scale` multiplies h_s. Critics under a gradient penalty can have it: "matmul" then takes the memory of a
    block of relations, "pairwise" that of all of them. Raises `UsageError` for maps of another side than `size`.
    """

    def __init__(self, channels: int, size: int, relation: Relation = "matmul", spatial_scale: float = 1.0) -> None:
        super().__init__()
        check_choice("relation", relation, Relation)
        self.size, self.relation, self.spatial_scale = size, relation, spatial_scale
        self.query = nn.Conv2d(channels, channels, 1, bias=False)  # W_1; eq. 2 has no biases
        self.key = nn.Conv2d(channels, channels, 1, bias=False)  # W_2
        # w ~ N(0, 1), one for each position. A pass that initialises networks must go by type of layer to leave it so.
        self.weight = nn.Parameter(torch.randn(size * size))

    def forward(self, h: Tensor) -> Tensor:
        check_size(h, self.size, "SpatialLongRange")
        query, key = self.query(h), self.key(h)
        out = self._pairwise(query, key, h) if self.relation == "pairwise" else self._matmul(query, key, h)
        return (self.spatial_scale * out).to(h.dtype).expand_as(h)

    def _matmul(self, query: Tensor, key: Tensor, h: Tensor) -> Tensor:
        # The columns of w' are equal, so all columns of w_n are u = alpha^T w: no N x N matrix is needed beyond alpha,
        # and all positions receive the same s, a pooling whose weights may be negative.
        with full_precision(h):
            u = PoolingWeights.apply(positions(query), positions(key), self.weight)
            return (positions(h) @ u.unsqueeze(-1)).unsqueeze(-1)  # s = h u, (B, C, 1, 1)

    def _pairwise(self, query: Tensor, key: Tensor, h: Tensor) -> Tensor:
        # h_s[:, j] = sum over i of alpha_ji w_i h[:, i]: attention whose values carry signed weights.
        return attention(query, key, (self.weight.view(self.size, self.size) * h).to(query.dtype))


class ChannelLongRange(nn.Module):
    """h (N, C, H, W) -> h_c of the same shape; for "matmul" a broadcast view, the same map in every channel.

    `channel_scale` multiplies z, the products of channels with channels; 1 is the paper's.
    """

    def __init__(self, channels: int, relation: Relation = "matmul", channel_scale: float = 1.0) -> None:
        super().__init__()
        check_choice("relation", relation, Relation)
        self.relation, self.channel_scale = relation, channel_scale
        self.query = nn.Conv2d(channels, channels, 1, bias=False)
        self.key = nn.Conv2d(channels, channels, 1, bias=False)
        self.weight = nn.Parameter(torch.randn(channels))  # c

    def forward(self, h: Tensor) -> Tensor:
        query, key, maps = positions(self.query(h)), positions(self.key(h)), positions(h)
        with full_precision(h):
            # Eq. 3, (B, C, C). z is a sum over all positions, so on large maps its softmax picks single channels; a
            # scale of 1 / (H W) would make it a mean.
            beta = relations(self.channel_scale * query.mT, key.mT)
            weights = beta * self.weight if self.relation == "pairwise" else (self.weight @ beta).unsqueeze(1)
            out = weights @ maps  # (B, C or 1, N)
        return out.to(h.dtype).unflatten(2, h.shape[2:]).expand_as(h)


class LongRange(nn.Module):
    """h (N, C, S, S) joined with h_s and h_c, (N, out_channels, S, S); the paper does not say how.

    "concat" gives [h, h_s, h_c], which has 3 C channels; "gated" gives h + gamma_s h_s + gamma_c h_c, with gammas that
    start at 0; "sum" gives h + h_s + h_c. After "matmul" use batch normalisation or none: an instance normalisation
    subtracts whatever is constant over positions.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        merge: Merge = "concat",
        relation: Relation = "matmul",
        spatial_scale: float | None = None,
        channel_scale: float = 1.0,
    ) -> None:
        super().__init__()
        check_choice("merge", merge, Merge)
        if spatial_scale is None:
            # |h_s| of "matmul" grows as sqrt(N) |h| and would drown h in a sum; a convolution after "concat" can learn
            # the scale. 1 / size is 1 / sqrt(N).
            spatial_scale = 1 / size if relation == "matmul" and merge != "concat" else 1.0
        self.merge, self.out_channels = merge, 3 * channels if merge == "concat" else channels
        self.spatial = SpatialLongRange(channels, size, relation, spatial_scale)
        self.channel = ChannelLongRange(channels, relation, channel_scale)
        if merge == "gated":
            self.spatial_gamma = nn.Parameter(torch.zeros(()))
            self.channel_gamma = nn.Parameter(torch.zeros(()))

    def forward(self, h: Tensor) -> Tensor:
        spatial, channel = self.spatial(h), self.channel(h)
        if self.merge == "concat":
            # With the wider convolution after it, the parameters are near those of the residual block that the paper
            # compares the module with (section 4.2).
            return torch.cat([h, spatial, channel], 1)
        if self.merge == "gated":  # for a module that joins networks which work without it
            spatial, channel = self.spatial_gamma * spatial, self.channel_gamma * channel
        return h + spatial + channel
