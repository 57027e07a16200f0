"""Self-attention of SAGAN (Zhang et al., section 3), and the softmax relations that all modules over positions share.

Here B is the batch and N = H W the number of positions, row by row, as in the papers.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from data.errors import UsageError
from stage2_codegen.fp32 import at_least_fp32, full_precision

# Relations computed at a time, over the whole batch: 4 MB in fp32 stay in a CPU's cache; on a GPU few and large
# launches are faster.
BLOCK = 2**20
GPU_BLOCK = 2**25


def positions(maps: Tensor) -> Tensor:
    """Flatten maps (B, C, H, W) to (B, C, N), in fp32 at least."""
    # Also under autocast: a sum over 16,384 positions in bf16 loses what it adds.
    return at_least_fp32(maps.flatten(2))


def check_size(x: Tensor, size: int, what: str) -> None:
    """Raise `UsageError` unless maps (N, C, H, W) have the side `size`, for which a module has its parameters."""
    height, width = x.shape[2:]
    if (height, width) != (size, size):
        raise UsageError(
            f"{what}: has parameters for {size} x {size} positions, the map is {height} x {width}",
            f"build the module for that map, size={height}" if height == width else "give it a square map",
        )


def recomputed[Result](function: Callable[..., Result], *inputs: Tensor) -> Result:
    """Return function(*inputs), of which autograd keeps the inputs alone; backward computes the rest again."""
    if not torch.is_grad_enabled():
        return function(*inputs)  # also because the first use of checkpoint imports for seconds
    # Only the non-reentrant kind can be differentiated twice. Nothing here draws random numbers to preserve.
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


def row_blocks(query: Tensor) -> list[slice]:
    """Divide the rows of relations(query, key) into consecutive blocks, for as many keys as queries."""
    batch, _, count = query.shape
    if torch.compiler.is_exporting():  # a program for any number of samples has one number of blocks
        batch = 1
    block = BLOCK if query.device.type == "cpu" else GPU_BLOCK
    rows = max(1, block // (batch * count))
    return [slice(start, start + rows) for start in range(0, count, rows)]


def relations(query: Tensor, key: Tensor) -> Tensor:
    """Return softmax over i of query_j . key_i: (B, D, J) and (B, D, I) -> (B, J, I), every row a distribution."""
    # Without the 1 / sqrt(D) of transformers, which none of these papers has.
    return (query.mT @ key).softmax(-1)


def blocked_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute `attention` in blocks of complete rows, which backward computes again; differentiable to any order."""

    def block(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return value @ relations(query, key).mT

    return torch.cat([recomputed(block, query[..., rows], key, value) for rows in row_blocks(query)], dim=-1)


def fused_graph(query: Tensor, key: Tensor, value: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return leaves of query, key and value, and the fused kernels' attention as a graph over them."""
    with torch.enable_grad():
        leaves = [x.detach().requires_grad_() for x in (query, key, value)]
        queries, keys, values = (x.mT.contiguous().unsqueeze(1) for x in leaves)  # (B, 1, N, C)
        return leaves, F.scaled_dot_product_attention(queries, keys, values, scale=1.0).squeeze(1).mT


class FusedAttention(torch.autograd.Function):
    """`attention` of query, key and value, each (B, C, N), by the fused kernels."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.graph = fused_graph(query, key, value)
        return ctx.graph[1].detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        saved = ctx.saved_tensors  # raises an error where a graph that was not retained is used again
        if not torch.is_grad_enabled():
            leaves, output = ctx.graph or fused_graph(*saved)
            ctx.graph = None  # or its maps would live as long as anything computed from the output
            return torch.autograd.grad(output, leaves, grads)
        # The fused kernels have no double backward. Where one is wanted, as under a gradient penalty, backward goes
        # through plain products instead, whose relations autograd then keeps.
        inputs = [x if x.requires_grad else x.detach().requires_grad_() for x in saved]
        with full_precision(inputs[0]):
            output = blocked_attention(*map(positions, inputs)).to(grads[0].dtype)
            return torch.autograd.grad(output, inputs, grads, create_graph=True)


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return o_j = sum over i of relations(query, key)_ji value_i, (B, C, H, W).

    Query and key are (B, D, H, W), value is (B, C, H, W), and D <= C. The relations are never in memory all at once.
    Inside the kernels softmax and sums are fp32, also for bf16 maps.
    """
    # The kernels want equal widths; zeros add nothing to a product.
    padding = (0, 0, 0, value.shape[1] - query.shape[1])
    out = FusedAttention.apply(F.pad(query.flatten(2), padding), F.pad(key.flatten(2), padding), value.flatten(2))
    return out.unflatten(2, value.shape[2:])


class SelfAttention(nn.Module):
    """x + gamma o with o_j = sum over i of softmax_i(query_j . key_i) value_i, for x (N, C, H, W); same shape.

    In the paper's letters query is g, key f and value h (eqs. 1 and 2). Critics under a gradient penalty can have it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 8, 1)
        # Three forms are in circulation. This one, with biases, all channels in value and no convolution after it, has
        # the parameters that Tian et al. publish for SAGAN in "GIU-GANs".
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))  # section 3: first learn from the neighbourhood, then from afar

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * attention(self.query(x), self.key(x), self.value(x))
