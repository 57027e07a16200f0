"""Ways between two seeds: equal angles on the sphere, and pictures' vectors that go over into each other."""

import pytest
import torch

from stage2_codegen.interpolation import slerp
from stage2_codegen.variants import VARIANTS, build_networks
from tests.tiny_variants import TINY

SHAPE = (4, 16, 16)


def test_a_way_between_seeds_takes_equal_angles_on_the_sphere() -> None:
    start, stop = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    stop *= start.norm() / stop.norm()
    way = slerp(start.expand(9, -1), stop.expand(9, -1), torch.linspace(0, 1, 9))
    torch.testing.assert_close(way[0], start)
    torch.testing.assert_close(way[-1], stop)
    torch.testing.assert_close(way.norm(dim=1), start.norm().expand(9))
    unit = way / way.norm(dim=1, keepdim=True)
    angles = torch.linalg.vecdot(unit[1:], unit[:-1]).acos()
    torch.testing.assert_close(angles, angles[:1].expand(8), rtol=1e-3, atol=0)


def test_rows_go_each_their_own_way_and_parallel_ones_straight() -> None:
    start = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    stop = torch.stack([start[0], 2 * start[1], torch.ones(8)])
    way = slerp(start, stop, torch.tensor([0.3, 0.5, 0.25]))
    torch.testing.assert_close(way[:2], torch.stack([start[0], 1.5 * start[1]]))
    torch.testing.assert_close(way[2:], slerp(start[2:], stop[2:], torch.tensor([0.25])))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_way_begins_and_ends_at_the_pictures_of_its_ends(name: str) -> None:
    torch.manual_seed(0)
    G, _ = build_networks(name, SHAPE, **TINY[name])
    G.eval()
    start, stop = torch.randn(2, 2, G.z_dim)
    with torch.no_grad():
        for share, expected in ((0.0, start), (1.0, stop)):
            torch.manual_seed(1)
            codes = G.between(start, stop, torch.full((2,), share))
            torch.manual_seed(1)
            torch.testing.assert_close(codes, G(expected), rtol=1e-3, atol=1e-4)


def test_lrm_mixes_the_vectors_of_two_pictures_and_shows_no_third() -> None:
    """Half way from row 0 to row 2 lies row 1 of the bank, of which nothing is seen."""
    torch.manual_seed(0)
    G, _ = build_networks("lrm", SHAPE, **{**TINY["lrm"], "metadata_rows": 3})
    G.eval()
    start, stop = torch.randn(2, 1, G.z_dim)
    start[:, -1], stop[:, -1] = -3.0, 3.0
    half = torch.tensor([0.5])
    with torch.no_grad():
        before = G.between(start, stop, half)
        G.bank[1] += 10  # type: ignore[operator, index]
        assert torch.equal(G.between(start, stop, half), before)
        mean = (G.bank[[0]] + G.bank[[2]]) / 2  # type: ignore[index]
        noise = slerp(start[:, :-1], stop[:, :-1], half)
        torch.testing.assert_close(before, G.drawn(noise, mean)[-1])  # type: ignore[operator]
