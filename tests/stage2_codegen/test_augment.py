"""Augmentations against loops over samples and cells."""

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from data.errors import UsageError
from stage2_codegen import augment
from stage2_codegen.augment import augmentation, color, cutout, jitter, translation

EVERY = "color,translation,cutout,jitter"


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The numbers in [0, 1) that are drawn, in order."""
    seen: list[Tensor] = []
    draw = augment.uniform_rows

    def recorded(*shape: int, device: torch.device) -> Tensor:
        seen.append(draw(*shape, device=device).double())
        return seen[-1]

    monkeypatch.setattr(augment, "uniform_rows", recorded)
    return seen


def cells(x: Tensor) -> Iterator[tuple[int, ...]]:
    return itertools.product(*map(range, x.shape))


def shifted(x: Tensor, dy: int, dx: int) -> Tensor:
    """One sample (C, H, W), its content moved down by dy and right by dx, zeros elsewhere."""
    out = torch.zeros_like(x)
    for c, i, j in cells(x):
        if 0 <= i - dy < x.shape[1] and 0 <= j - dx < x.shape[2]:
            out[c, i, j] = x[c, i - dy, j - dx]
    return out


def test_color_is_the_three_formulas_by_loops(drawn: list[Tensor]) -> None:
    x = torch.rand(4, 3, 5, 6, dtype=torch.float64) * 2 - 1
    out = color(x)
    brightness, saturation, contrast = ([u.item() for u in draws.flatten()] for draws in drawn)
    for n in range(4):
        expected = {}
        for c, i, j in cells(x[n]):
            grey = sum(x[n, k, i, j].item() + brightness[n] - 0.5 for k in range(3)) / 3
            expected[c, i, j] = (x[n, c, i, j].item() + brightness[n] - 0.5 - grey) * 2 * saturation[n] + grey
        mean = sum(expected.values()) / 90
        for (c, i, j), value in expected.items():
            assert out[n, c, i, j].item() == pytest.approx((value - mean) * (contrast[n] + 0.5) + mean, abs=1e-10)


def test_translation_is_a_shifted_slice_with_zeros_within_an_eighth_and_reaches_every_shift() -> None:
    x = torch.randn(300, 2, 16, 8)
    found = set()
    candidates = {(dy, dx): [shifted(x[n], dy, dx) for n in range(8)] for dy in range(-3, 4) for dx in range(-3, 4)}
    for n, out in enumerate(translation(x)[:8]):
        assert sum(torch.equal(out, candidate[n]) for candidate in candidates.values()) == 1
    for row in translation(torch.arange(1.0, 129).reshape(1, 1, 16, 8).expand(300, -1, -1, -1))[:, 0]:
        i, j = divmod(int(row[8, 4].item()) - 1, 8)
        found.add((8 - i, 4 - j))
    assert found == set(itertools.product((-2, -1, 0, 1, 2), (-1, 0, 1)))


@pytest.mark.parametrize("side", [16, 64, 256])
def test_translation_of_square_codes_is_bounded_by_an_eighth(side: int) -> None:
    rows = torch.arange(side * side, dtype=torch.float32).reshape(1, 1, side, side).expand(200, -1, -1, -1)
    centre = translation(rows)[:, 0, side // 2, side // 2].long()
    dy, dx = side // 2 - centre // side, side // 2 - centre % side
    for shift in (dy, dx):
        assert shift.abs().max() <= side // 8
        assert shift.abs().max() > side // 8 * 0.9
        assert shift.double().mean().abs() < side / 8 / 5


def test_cutout_zeroes_one_box_of_half_the_sides_clipped_at_the_borders() -> None:
    side = 8
    x = torch.randn(600, 3, side, side)
    out = cutout(x)
    rows_seen, columns_seen = set(), set()
    for sample, original in zip(out, x, strict=True):
        zero = (sample == 0).all(0)
        rows, columns = zero.any(1).nonzero().flatten().tolist(), zero.any(0).nonzero().flatten().tolist()
        box = torch.zeros(side, side, dtype=torch.bool)
        for i, j in itertools.product(rows, columns):
            box[i, j] = True
        assert torch.equal(sample, original.masked_fill(box, 0))
        assert zero.sum() == len(rows) * len(columns)
        rows_seen.add(tuple(rows))
        columns_seen.add(tuple(columns))
    # a box of 4 around each of the nine lines between and beside 8 cells
    placements = {tuple(range(max(centre - 2, 0), min(centre + 2, side))) for centre in range(side + 1)}
    assert rows_seen == columns_seen == placements


def test_jitter_is_affine_in_every_channel_of_every_sample(drawn: list[Tensor]) -> None:
    x, std = torch.randn(3, 4, 2, 2, dtype=torch.float64), torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    out = jitter(x, std)
    u, v = (2 * draws - 1 for draws in drawn)
    for n, c, i, j in cells(x):
        expected = x[n, c, i, j] * (1 + 0.2 * u[n, c, 0, 0]) + 0.2 * std[c] * v[n, c, 0, 0]
        assert out[n, c, i, j].item() == pytest.approx(expected.item(), abs=1e-10)


def test_jitter_has_the_moments_of_its_uniform_numbers() -> None:
    """Of a constant x: mean x, variance 0.2^2 (x^2 + std^2) / 3, channels and samples independent."""
    std = torch.tensor([0.5, 2.0])
    out = jitter(torch.full((20000, 2, 1, 1), 3.0), std).flatten(1)
    variance = 0.04 * (9 + std**2) / 3
    torch.testing.assert_close(out.mean(0), torch.full((2,), 3.0), rtol=0, atol=0.02)
    torch.testing.assert_close(out.var(0), variance, rtol=0.04, atol=0)
    assert torch.corrcoef(out.T)[0, 1].abs() < 0.03


@pytest.mark.parametrize("policy", ["color", "translation", "cutout", "jitter", EVERY])
def test_gradients_flow_through(policy: str) -> None:
    apply = augmentation(policy, torch.ones(3))

    def seeded_apply(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        out = apply(x)
        assert isinstance(out, Tensor)
        return out

    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(seeded_apply, x, fast_mode=True)


@pytest.mark.parametrize("policy", ["color", "translation", "cutout", "jitter"])
def test_one_seed_gives_one_operation_whatever_the_codes(policy: str) -> None:
    """Every operation is affine in the codes, so f(a) - f(b) = f(a - b) - f(0) only if the numbers are the same."""
    apply, a, b = augmentation(policy, torch.ones(3)), torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)

    def seeded_apply(codes: Tensor, seed: int = 5) -> Tensor:
        torch.manual_seed(seed)
        out = apply(codes)
        assert isinstance(out, Tensor)
        return out

    difference = seeded_apply(a - b) - seeded_apply(torch.zeros_like(a))
    torch.testing.assert_close(seeded_apply(a) - seeded_apply(b), difference, rtol=1e-4, atol=1e-5)
    assert not torch.equal(seeded_apply(a, 6), seeded_apply(a))


def test_samples_and_scales_draw_their_own_numbers() -> None:
    apply = augmentation("jitter", torch.ones(1))
    scales = apply((torch.ones(5, 1, 4, 4), torch.ones(5, 1, 8, 8)))
    assert isinstance(scales, tuple)
    assert [scale.shape for scale in scales] == [(5, 1, 4, 4), (5, 1, 8, 8)]
    assert len({scale[n, 0, 0, 0].item() for scale in scales for n in range(5)}) == 10


def test_operations_follow_the_order_of_the_policy() -> None:
    """Cutting after the jitter leaves zeros, jitter after the cut does not."""
    codes, std = torch.full((8, 2, 8, 8), 5.0), torch.ones(2)
    for policy, zeros in (("jitter, cutout", True), ("cutout, jitter", False)):
        out = augmentation(policy, std)(codes)
        assert isinstance(out, Tensor)
        assert (out == 0).any() == zeros


@pytest.mark.parametrize("policy", ["", "  "])
def test_an_empty_policy_is_the_identity(policy: str) -> None:
    single = torch.randn(2, 3, 4, 4)
    scales = (single, single)
    apply = augmentation(policy, torch.ones(3))
    assert apply(single) is single
    assert apply(scales) is scales


def test_unknown_names_and_color_on_codes_are_refused_before_training() -> None:
    with pytest.raises(UsageError, match=r"flip") as error:
        augmentation("cutout,flip", torch.ones(16))
    assert all(name in error.value.fix for name in ("color", "translation", "cutout", "jitter"))
    with pytest.raises(UsageError, match=r"3 channels, codes have 16"):
        augmentation("color", torch.ones(16))


@pytest.mark.parametrize("side", [16, 32, 256])
def test_memory_layout_and_bf16_change_nothing_but_rounding(side: int) -> None:
    codes, apply = torch.randn(2, 3, side, side), augmentation(EVERY, torch.ones(3))
    outputs = []
    for form in (codes, codes.contiguous(memory_format=torch.channels_last), codes.bfloat16()):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=form.dtype == torch.bfloat16):
            out = apply(form)
        assert isinstance(out, Tensor)
        assert out.dtype == form.dtype
        outputs.append(out.float())
    torch.testing.assert_close(outputs[1], outputs[0])
    torch.testing.assert_close(outputs[2], outputs[0], rtol=0.05, atol=0.05)
