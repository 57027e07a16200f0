"""The modules that relate positions, against loops and explicit matrices written from the papers."""

import itertools
import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from data.errors import UsageError
from stage2_codegen.losses import gradient_penalty
from stage2_codegen.modules import (
    ChannelLongRange,
    GraphConvolution,
    LongRange,
    NonLocal,
    SelfAttention,
    SpatialLongRange,
    self_attention,
)
from stage2_codegen.modules.graph_convolution import normalised
from stage2_codegen.modules.self_attention import FusedAttention

RELATIONS: list[Any] = ["matmul", "pairwise"]
MERGES: list[Any] = ["concat", "gated", "sum"]
GRAPHS: list[tuple[Any, Any]] = list(itertools.product(["soft", "binary"], ["conv", "diag"]))

# name -> a tiny module for maps of 2 channels, 3 x 3
CASES: dict[str, Callable[[], nn.Module]] = {
    "self_attention": lambda: SelfAttention(2),
    "non_local": lambda: NonLocal(2),
    **{f"spatial-{r}": lambda r=r: SpatialLongRange(2, 3, r) for r in RELATIONS},  # type: ignore[misc]
    **{f"channel-{r}": lambda r=r: ChannelLongRange(2, r) for r in RELATIONS},  # type: ignore[misc]
    "long_range-gated": lambda: LongRange(2, 3, "gated"),
    **{f"graph-{a}-{f}": lambda a=a, f=f: GraphConvolution(2, 3, a, f) for a, f in GRAPHS},  # type: ignore[misc]
}
every_module = pytest.mark.parametrize("case", CASES)
both_relations = pytest.mark.parametrize("relation", RELATIONS)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


def random_parameters(module: nn.Module, dtype: torch.dtype = torch.float64) -> Any:
    """Also where a module starts from zeros."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.to(dtype)


@pytest.fixture(params=[1, 50, 10**6])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """One row of relations at a time, a few with a remainder, or all at once."""
    monkeypatch.setattr(self_attention, "BLOCK", request.param)
    return request.param


def project(conv: Any, x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C', H W) by the 1 x 1 convolution's matrix."""
    out = conv.weight[:, :, 0, 0] @ x.flatten(2)
    return out if conv.bias is None else out + conv.bias[:, None]


def exp_rows(logits: Tensor) -> Tensor:
    """exp n_ij / sum over l of exp n_il, for a matrix."""
    weights = [[math.exp(value) for value in row] for row in logits.tolist()]
    return torch.tensor([[value / sum(row) for value in row] for row in weights], dtype=torch.float64)


def looped_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    out = torch.zeros_like(value)
    for n, (queries, keys) in enumerate(zip(query, key, strict=True)):
        alpha = exp_rows(queries.T @ keys)
        for j, i in itertools.product(range(query.shape[2]), range(key.shape[2])):
            out[n, :, j] += alpha[j, i] * value[n, :, i]
    return out


def naive_spatial(module: SpatialLongRange, h: Tensor) -> Tensor:
    """The paper's section 3.2 with its N x N matrices: n, alpha, w', w_n; differentiable."""
    logits = project(module.query, h).mT @ project(module.key, h)
    alpha = logits.exp() / logits.exp().sum(-1, keepdim=True)
    repeated = module.weight[:, None].repeat(1, len(module.weight))
    scaled = alpha.mT @ repeated if module.relation == "matmul" else alpha.mT * repeated
    return (h.flatten(2) @ scaled).reshape(h.shape)


def looped_channel(module: ChannelLongRange, h: Tensor, scale: float = 1.0) -> Tensor:
    maps, out = h.flatten(2), torch.zeros_like(h.flatten(2))
    channels = range(h.shape[1])
    for n in range(len(h)):
        beta = exp_rows(scale * project(module.query, h)[n] @ project(module.key, h)[n].T)
        for j, i, k in itertools.product(channels, channels, channels):
            if module.relation == "matmul":  # (beta^T c')_ij = sum over k of beta_ki c_k
                out[n, j] += beta[k, i] * module.weight[k] * maps[n, i]
            elif k == 0:
                out[n, j] += beta[j, i] * module.weight[i] * maps[n, i]
    return out.reshape(h.shape)


# ---- self-attention and the non-local block


@torch.no_grad()
@pytest.mark.parametrize("channels", [3, 16])
def test_self_attention_is_its_loops(channels: int, block: int) -> None:
    module, x = random_parameters(SelfAttention(channels)), randn(2, channels, 4, 2)
    o = looped_attention(*(project(conv, x) for conv in (module.query, module.key, module.value)))
    close(module(x), x + module.gamma * o.reshape(x.shape))


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 6])
def test_non_local_is_its_loops(channels: int, block: int) -> None:
    module, x = random_parameters(NonLocal(channels)), randn(2, channels, 4, 2)
    y = looped_attention(*(project(conv, x) for conv in (module.query, module.key, module.value)))
    close(module(x), x + project(module.out, y[..., None]).reshape(x.shape))


@pytest.mark.parametrize(
    "module",
    [SelfAttention(16), NonLocal(16), GraphConvolution(16, 4), LongRange(16, 4, "gated")],
    ids=lambda m: type(m).__name__,
)
def test_modules_for_existing_networks_start_as_the_identity(module: nn.Module) -> None:
    x = torch.randn(2, 16, 4, 4)
    assert module(x).equal(x)


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: SelfAttention(128), 20_641),
        (lambda: SelfAttention(256), 82_241),
        (lambda: SelfAttention(512), 328_321),
        (lambda: GraphConvolution(256, 8), 167_937),
        (lambda: GraphConvolution(256, 8, node_features="diag"), 167_937 - 63 * 256),
        (lambda: LongRange(64, 32), 4 * 64 * 64 + 32 * 32 + 64),
        (lambda: LongRange(64, 32, "gated"), 4 * 64 * 64 + 32 * 32 + 64 + 2),
    ],
)
def test_parameter_counts(make: Callable[[], nn.Module], count: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in make().parameters()) == count


# ---- the long-range module


@both_relations
def test_spatial_module_and_its_gradients_are_the_papers_matrices(relation: Any, block: int) -> None:
    module, h = random_parameters(SpatialLongRange(3, 4, relation)), randn(2, 3, 4, 4).requires_grad_()
    out, expected, grad = module(h), naive_spatial(module, h), randn(2, 3, 4, 4)
    close(out, expected)
    inputs = [h, *module.parameters()]
    for actual, naive in zip(
        torch.autograd.grad(out, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        close(actual, naive)


@torch.no_grad()
def test_matmul_gives_every_position_the_sum_of_attention_weighted_by_w() -> None:
    module, h = random_parameters(SpatialLongRange(3, 4)), randn(2, 3, 4, 4)
    o = looped_attention(project(module.query, h), project(module.key, h), h.flatten(2))
    close(module(h), (o * module.weight).sum(-1)[..., None, None].expand_as(h))


@torch.no_grad()
def test_matmul_without_queries_pools_with_the_mean_of_w() -> None:
    module, h = random_parameters(SpatialLongRange(3, 4)), randn(2, 3, 4, 4)
    nn.init.zeros_(module.query.weight)
    close(module(h), (module.weight.mean() * h.sum((2, 3), keepdim=True)).expand_as(h))


@torch.no_grad()
def test_pairwise_with_w_of_one_is_attention_and_changes_sign_with_w() -> None:
    module, h = random_parameters(SpatialLongRange(3, 4, "pairwise")), randn(2, 3, 4, 4)
    before = module(h)
    module.weight.neg_()
    close(module(h), -before)
    nn.init.ones_(module.weight)
    plain = looped_attention(project(module.query, h), project(module.key, h), h.flatten(2))
    close(module(h), plain.reshape(h.shape))


@torch.no_grad()
@both_relations
@pytest.mark.parametrize("scale", [1.0, 1 / 15])
def test_channel_module_is_its_loops(relation: Any, scale: float) -> None:
    module, h = random_parameters(ChannelLongRange(4, relation, channel_scale=scale)), randn(2, 4, 3, 5)
    close(module(h), looped_channel(module, h, scale))


def test_matmul_across_channels_gives_every_channel_the_same_map() -> None:
    out = random_parameters(ChannelLongRange(4))(randn(2, 4, 3, 5))
    close(out, out[:, :1].expand_as(out))


@torch.no_grad()
@both_relations
@pytest.mark.parametrize("merge", MERGES)
def test_long_range_joins_what_its_parts_give(relation: Any, merge: Any) -> None:
    module, h = random_parameters(LongRange(3, 4, merge, relation)), randn(2, 3, 4, 4)
    spatial, channel = naive_spatial(module.spatial, h), looped_channel(module.channel, h)
    if merge != "concat" and relation == "matmul":
        spatial = spatial / 4  # 1 / sqrt(N)
    if merge == "concat":
        expected = torch.cat([h, spatial, channel], 1)
    elif merge == "sum":
        expected = h + spatial + channel
    else:
        expected = h + module.spatial_gamma * spatial + module.channel_gamma * channel
    close(module(h), expected)
    assert module.out_channels == expected.shape[1]


@torch.no_grad()
def test_scales_can_be_chosen() -> None:
    module, h = random_parameters(LongRange(3, 4, "sum", spatial_scale=0.3, channel_scale=0.2)), randn(2, 3, 4, 4)
    close(module(h), h + 0.3 * naive_spatial(module.spatial, h) + looped_channel(module.channel, h, 0.2))


def test_weights_of_positions_and_channels_are_standard_normal() -> None:
    torch.manual_seed(0)
    for weight in (SpatialLongRange(1, 64).weight, ChannelLongRange(4096).weight):
        assert weight.shape == (4096,)
        assert abs(weight.mean()) < 0.06
        assert abs(weight.std() - 1) < 0.04


# ---- graph convolution


def by_hand(adjacency: Tensor) -> Tensor:
    """D^-1/2 (A + I) D^-1/2, entry by entry."""
    count = len(adjacency)
    linked = [[adjacency[i, j].item() + (i == j) for j in range(count)] for i in range(count)]
    degrees = [sum(row) for row in linked]
    rows = [[linked[i][j] / math.sqrt(degrees[i] * degrees[j]) for j in range(count)] for i in range(count)]
    return torch.tensor(rows, dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize(("adjacency", "node_features"), GRAPHS)
def test_graph_convolution_is_its_loops(adjacency: Any, node_features: Any) -> None:
    module, x = random_parameters(GraphConvolution(4, 3, adjacency, node_features)), randn(2, 4, 3, 3)
    count, expected = 9, x.clone()
    for n in range(2):
        f, g, node, mixed = (project(c, x)[n] for c in (module.query, module.key, module.node, module.mix))
        a = torch.stack([exp_rows((f.T @ g[:, j])[None])[0] for j in range(count)])  # a_ji, softmax over i of r_ij
        if adjacency == "binary":
            a = (a > 1 / count).double()
        features = node.T if node_features == "conv" else torch.diag(node[0])
        y, z = torch.zeros(count, count).double(), torch.zeros(4, count).double()
        graph = by_hand(a)
        for i, j, k in itertools.product(range(count), repeat=3):
            y[i, j] += graph[i, k] * (features[k] * module.theta[:, j]).sum()
        for c, i, j in itertools.product(range(4), range(count), range(count)):
            z[c, j] += mixed[c, i] * y[i, j]
        expected[n] += module.alpha * project(module.out, z[None, ..., None])[0].reshape(4, 3, 3)
    close(module(x), expected)


def test_equal_positions_share_evenly_and_soft_rows_make_the_normalisation_a_half() -> None:
    flat = self_attention.relations(torch.zeros(1, 2, 16), torch.zeros(1, 2, 16)).double()
    assert (flat == 1 / 16).all()
    soft = randn(2, 6, 6).softmax(-1)
    close(normalised(soft), (soft + torch.eye(6)) / 2)


def test_normalisation_of_a_binary_graph() -> None:
    a = torch.tensor([[0, 1, 1], [0, 0, 0], [1, 0, 1]]).double()  # with I: degrees 3, 1, 3
    root = 1 / math.sqrt(3)
    expected = torch.tensor([[1 / 3, root, 1 / 3], [0, 1, 0], [1 / 3, 0, 2 / 3]], dtype=torch.float64)
    close(normalised(a), expected)
    close(normalised(a), by_hand(a))


@pytest.mark.parametrize(("adjacency", "straight_through"), [("soft", True), ("binary", True), ("binary", False)])
def test_gradients_reach_the_edges_unless_the_threshold_is_hard(adjacency: Any, straight_through: bool) -> None:
    module = random_parameters(GraphConvolution(4, 3, adjacency, straight_through=straight_through))
    module(randn(2, 4, 3, 3)).square().sum().backward()
    for conv in (module.query, module.key):
        assert conv.weight.grad.ne(0).any() == (adjacency == "soft" or straight_through)


def test_graph_convolution_can_leave_the_identity() -> None:
    """Only alpha starts at zero; Theta is Glorot uniform, of variance 1 / N."""
    torch.manual_seed(0)
    module = GraphConvolution(8, 8)
    assert module.theta.abs().max() <= math.sqrt(6 / 128)
    assert module.theta.var().item() == pytest.approx(1 / 64, rel=0.05)
    module(torch.randn(2, 8, 8, 8)).square().sum().backward()
    assert module.alpha.grad is not None
    assert module.alpha.grad.ne(0).all()


# ---- what holds for all


@pytest.mark.parametrize("case", [case for case in CASES if "binary" not in case])  # whose gradient is a surrogate
def test_first_and_second_derivatives(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_attention, "BLOCK", 70)  # blocks of 3 rows
    module, x = random_parameters(CASES[case]()), randn(2, 2, 3, 3).requires_grad_()
    names, parameters = zip(*module.named_parameters(), strict=True)

    def call(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(call, (x, *parameters))
    assert torch.autograd.gradgradcheck(call, (x, *parameters))


@every_module
def test_a_critic_under_gradient_penalty_trains(case: str) -> None:
    module = random_parameters(CASES[case](), torch.float32)
    gradient_penalty(module, torch.randn(2, 2, 3, 3), torch.randn(2, 2, 3, 3)).backward()
    queries = [p for name, p in module.named_parameters() if name.endswith("query.weight")]
    assert queries
    assert all(p.grad.isfinite().all() and p.grad.ne(0).any() for p in queries)


@every_module
def test_memory_format_does_not_matter(case: str) -> None:
    module, x = random_parameters(CASES[case]()), randn(2, 2, 3, 3)
    close(module(x.contiguous(memory_format=torch.channels_last)), module(x))


@pytest.mark.parametrize(
    "module", [SpatialLongRange(2, 4), LongRange(2, 4), GraphConvolution(2, 4)], ids=lambda m: type(m).__name__
)
def test_maps_of_another_size_are_refused(module: nn.Module) -> None:
    with pytest.raises(UsageError, match="4 x 4 positions, the map is 8 x 8") as caught:
        module(torch.zeros(1, 2, 8, 8))
    assert "size=8" in caught.value.fix


class Watch(TorchDispatchMode):
    """The largest tensor any operation makes, and in which type softmaxes are taken."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.softmax_types = 0, set[torch.dtype]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in (out if isinstance(out, tuple | list) else [out]) if isinstance(x, Tensor)]
        self.largest = max([self.largest, *(x.untyped_storage().nbytes() // x.element_size() for x in tensors)])
        if func is torch.ops.aten._softmax.default:
            self.softmax_types.add(args[0].dtype)
        return out


@pytest.mark.parametrize(
    "module",
    [SpatialLongRange(8, 64), SpatialLongRange(8, 64, "pairwise"), SelfAttention(8), NonLocal(8)],
    ids=["matmul", "pairwise", "self_attention", "non_local"],
)
def test_relations_are_never_there_all_at_once(module: nn.Module) -> None:
    module, h = random_parameters(module, torch.float32), torch.randn(1, 8, 64, 64, requires_grad=True)
    with Watch() as watch:
        module(h).square().mean().backward()
    assert watch.largest < 4096**2 / 8


@contextmanager
def counting_kept(kept: list[int]) -> Iterator[None]:
    def pack(x: Tensor) -> Tensor:
        kept.append(x.numel())
        return x

    with saved_tensors_hooks(pack, lambda x: x):
        yield


def test_second_derivatives_of_matmul_keep_no_relations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_attention, "BLOCK", 2**14)
    module, h = random_parameters(SpatialLongRange(4, 32), torch.float32), torch.randn(1, 4, 32, 32, requires_grad=True)
    kept: list[int] = []
    with Watch() as watch, counting_kept(kept):
        (gradient,) = torch.autograd.grad(module(h).square().mean(), h, create_graph=True)
        gradient.square().sum().backward()
    assert sum(kept) < 1024**2 / 2
    assert watch.largest <= 2**16


@every_module
def test_softmax_is_fp32_under_autocast(case: str) -> None:
    module, x = random_parameters(CASES[case](), torch.float32), torch.randn(2, 2, 3, 3)
    with Watch() as watch, torch.autocast("cpu", torch.bfloat16):
        out = module(x.bfloat16())
        out.float().square().mean().backward()
    assert watch.softmax_types <= {torch.float32}
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), module(x), rtol=0.1, atol=0.1)


def fused(*shapes: tuple[int, ...]) -> tuple[list[Tensor], Tensor]:
    torch.manual_seed(0)
    inputs = [randn(*shape).requires_grad_() for shape in shapes]
    return inputs, FusedAttention.apply(*inputs)


def test_what_the_fused_kernels_keep_is_gone_after_backward() -> None:
    """Although the output, which a training step keeps to the next, still points to the node."""
    _, output = fused((2, 3, 9), (2, 3, 9), (2, 3, 9))
    kept = weakref.ref(output.grad_fn.graph[1])  # type: ignore[union-attr]
    assert kept() is not None
    output.sum().backward()
    assert kept() is None
    with pytest.raises(RuntimeError, match="second time"):
        output.sum().backward()


def test_a_retained_graph_gives_the_same_gradients_again() -> None:
    inputs, output = fused((2, 3, 9), (2, 3, 9), (2, 3, 9))
    weight = torch.randn_like(output)
    once, twice, differentiable = (
        torch.autograd.grad(output, inputs, weight, retain_graph=True, create_graph=create)
        for create in (False, False, True)
    )
    for first, second, third in zip(once, twice, differentiable, strict=True):
        close(second, first)
        close(third, first)
