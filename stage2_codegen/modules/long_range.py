"""The long-range module ("Lightweight Long-Range Generative Adversarial Networks", section 3.2).

With n = (W_1 h)^T (W_2 h), alpha = softmax of its rows (eq. 2) and w one learned weight a position, the paper repeats w
in N columns, w', and has w_n = alpha^T x w', h_s = h w_n. Every column of w_n is then u = alpha^T w, so the product
needs no N x N matrix beyond alpha: all positions receive the same s = h u, a pooling whose weights may be negative.
That is `relation="matmul"`, the letter. The prose (w_n[i, j] is "scaled by the extent of relations between i and j")
and the paper's figure 1 fit the elementwise product instead: `relation="pairwise"`, h_s[:, j] = sum over i of
alpha_ji w_i h[:, i], attention whose values carry signed weights. The same holds across channels (eq. 3).

Convolutions have no bias. A constant over positions does not survive an instance normalisation: after "matmul" use
batch normalisation or none. w and c start as N(0, 1) and are no convolution's `weight`: initialise by layer type.
"""

from typing import Any

import torch
from torch import Tensor, nn

from data.limits import check_choice
from stage2_codegen.configs.choices import Merge, Relation
from stage2_codegen.fp32 import full_precision
from stage2_codegen.modules.self_attention import attention, check_size, positions, recomputed, relations, row_blocks


class PoolingWeights(torch.autograd.Function):
    """u = alpha^T w: query, key (B, D, N) and w (N,) -> u (B, N), in blocks of rows of alpha.

    Softmax rows are complete inside a block, so there is no second pass; memory is that of a block. Backward is written
    out, because it needs two matrix products beside the logits where autograd would form one more N x N gradient. It is
    differentiable, block by block again, so a gradient of the gradient keeps no N x N matrix either.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, weight)
        pooled = (weight[rows] @ relations(query[..., rows], key) for rows in row_blocks(query))
        return sum(pooled, torch.zeros_like(key[:, 0]))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
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
    """Of grad . u by the rows of a block (B, D, J), by the whole key (B, D, N), by the block's weights (J,).

    d/dw_j = (alpha grad)_j, and d/dn_ji = w_j alpha_ji (grad_i - (alpha grad)_j): the softmax's own derivative.
    """
    alpha = relations(query, key)  # (B, J, N)
    pooled = alpha @ grad.unsqueeze(-1)  # (B, J, 1)
    slope = (grad.unsqueeze(1) - pooled).mul_(alpha)
    return weight * (key @ slope.mT), (weight * query) @ slope, pooled.sum((0, 2))


class SpatialLongRange(nn.Module):
    """h (N, C, S, S) -> h_s of the same shape; for "matmul" a broadcast view, the same vector at every position.

    |h_s| of "matmul" grows as sqrt(N) |h|, which `spatial_scale` (1 / sqrt(N), say) can undo. w belongs to maps of
    `size`. Fit for critics under a gradient penalty: "matmul" in the memory of a block of relations, "pairwise" in
    that of all of them.
    """

    def __init__(self, channels: int, size: int, relation: Relation = "matmul", spatial_scale: float = 1.0) -> None:
        super().__init__()
        check_choice("relation", relation, Relation)
        self.size, self.relation, self.spatial_scale = size, relation, spatial_scale
        self.query = nn.Conv2d(channels, channels, 1, bias=False)  # W_1
        self.key = nn.Conv2d(channels, channels, 1, bias=False)  # W_2
        self.weight = nn.Parameter(torch.randn(size * size))  # w

    def forward(self, h: Tensor) -> Tensor:
        check_size(h, self.size, "SpatialLongRange")
        query, key = self.query(h), self.key(h)
        out = self._pairwise(query, key, h) if self.relation == "pairwise" else self._matmul(query, key, h)
        return (self.spatial_scale * out).to(h.dtype).expand_as(h)

    def _matmul(self, query: Tensor, key: Tensor, h: Tensor) -> Tensor:
        with full_precision(h):
            u = PoolingWeights.apply(positions(query), positions(key), self.weight)
            return (positions(h) @ u.unsqueeze(-1)).unsqueeze(-1)  # s = h u, (B, C, 1, 1)

    def _pairwise(self, query: Tensor, key: Tensor, h: Tensor) -> Tensor:
        return attention(query, key, (self.weight.view(self.size, self.size) * h).to(query.dtype))


class ChannelLongRange(nn.Module):
    """h (N, C, H, W) -> h_c of the same shape; for "matmul" a broadcast view, the same map in every channel.

    z, channel against channel, is a sum over all positions, so on large maps its softmax picks single channels;
    `channel_scale` multiplies z (1 / (H W) takes the mean instead; 1 is the paper's).
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
            beta = relations(self.channel_scale * query.mT, key.mT)  # eq. 3, (B, C, C)
            weights = beta * self.weight if self.relation == "pairwise" else (self.weight @ beta).unsqueeze(1)
            out = weights @ maps  # (B, C or 1, N)
        return out.to(h.dtype).unflatten(2, h.shape[2:]).expand_as(h)


class LongRange(nn.Module):
    """h with what both modules give; how they join is not published.

    "concat": [h, h_s, h_c], 3 C channels, for the next convolution; the parameters are then near those of the residual
    block it is compared with (section 4.2). "gated": h + gamma_s h_s + gamma_c h_c, gammas starting at 0, for
    networks that exist. "sum": h + h_s + h_c. `out_channels` says how many come out. `spatial_scale` None is 1 /
    sqrt(N) where a sum of "matmul" would drown h, otherwise 1.
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
            return torch.cat([h, spatial, channel], 1)
        if self.merge == "gated":
            spatial, channel = self.spatial_gamma * spatial, self.channel_gamma * channel
        return h + spatial + channel
