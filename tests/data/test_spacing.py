"""Evenly spaced choices have no larger gap than they must, and keep what they promise to keep."""

import numpy as np
import pytest

from data.spacing import evenly_spaced, spaced_rows


@pytest.mark.parametrize(("total", "count"), [(1, 1), (5, 2), (10, 3), (64, 64), (1000, 7)])
def test_gaps_differ_by_one_at_most(total: int, count: int) -> None:
    rows = spaced_rows(total, count)
    assert len(rows) == count
    assert rows.min() == 0
    assert rows.max() < total
    for chosen in (rows, np.array(evenly_spaced(total, count))):
        assert np.ptp(np.diff(chosen)) <= 1 if len(chosen) > 2 else True


def test_more_rows_than_there_are_repeat_all_equally_often() -> None:
    assert np.bincount(spaced_rows(3, 9)).tolist() == [3, 3, 3]


def test_the_ends_are_among_the_chosen() -> None:
    assert evenly_spaced(10, 4) == [0, 3, 6, 9]
    assert evenly_spaced(3, 8) == [0, 1, 2]
    assert evenly_spaced(0, 8) == []
