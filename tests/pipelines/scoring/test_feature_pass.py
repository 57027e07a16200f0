"""A pass sees every image once and in order, on one process or two, and speaks up about NaN."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from data.errors import CorruptError
from pipelines.scoring.feature_pass import Images, Rows, Source, look_at
from stage1_autoencoder.training.processes import make_accelerator


class Means:
    """The mean of each image, and how many images came with it."""

    name = "means"

    def prepare(self, images_u8: Images) -> torch.Tensor:
        return torch.from_numpy(images_u8).float()

    def look(self, prepared: torch.Tensor) -> Rows:
        means = prepared.mean(dim=(1, 2, 3)).numpy()
        return np.stack([means, np.full_like(means, len(prepared))], axis=1)


class Broken(Means):
    def look(self, prepared: torch.Tensor) -> Rows:
        return np.full((len(prepared), 1), np.nan, np.float32)


def numbered(positions: Sequence[int]) -> Images:
    return np.stack([np.full((3, 4, 4), position, np.uint8) for position in positions])


def test_every_image_is_seen_once_and_in_order_by_every_view() -> None:
    one, two = look_at(Source("images", 23, numbered), [Means(), Means()], 5, make_accelerator())
    assert one[:, 0].tolist() == list(range(23))
    assert one[:, 1].tolist() == [5] * 20 + [3] * 3
    np.testing.assert_array_equal(one, two)


def test_drawn_images_are_others_in_random_order_the_same_every_time() -> None:
    def seen(count: int, seed: int) -> list[float]:
        (rows,) = look_at(Source("images", 23, numbered).drawn(count, seed), [Means()], 5, make_accelerator())
        return rows[:, 0].tolist()

    assert sorted(seen(30, 0)) == list(range(23)) != seen(30, 0)
    assert seen(4, 0) == seen(4, 0) != seen(4, 1)
    assert len(set(seen(4, 0))) == 4


def test_images_are_made_while_others_are_looked_at() -> None:
    made: list[int] = []

    class Late(Means):
        def look(self, prepared: torch.Tensor) -> Rows:
            ahead.append(len(made) - int(prepared[-1, 0, 0, 0]) - 1)
            return super().look(prepared)

    def make(positions: Sequence[int]) -> Images:
        made.extend(positions)
        return numbered(positions)

    ahead: list[int] = []
    look_at(Source("images", 30, make), [Late()], 3, make_accelerator())
    assert max(ahead) >= 3
    assert max(ahead) <= 4 * 3  # and not many more, for memory's sake


def test_nan_is_an_error_that_names_view_and_images() -> None:
    with pytest.raises(CorruptError, match="means features: are not finite on the given images"):
        look_at(Source("given images", 4, numbered), [Broken()], 2, make_accelerator())


TWO_RANKS = """
import sys
import numpy as np
from data.images import open_images
from pipelines.scoring.feature_pass import Source, look_at
from pipelines.scoring.features import load_features
from stage1_autoencoder.training.processes import make_accelerator

accelerator = make_accelerator()
images = open_images("scenes:19@32", size=32)
source = Source("scenes", 19, lambda positions: np.stack([images.image(i) for i in positions]))
(rows,) = look_at(source, [load_features("offline", None, accelerator.device)], 4, accelerator)
np.save(f"{sys.argv[1]}-{accelerator.process_index}.npy", rows)
accelerator.end_training()  # else the process group's threads abort the exit of one rank in ten
"""


def test_two_ranks_see_what_one_process_sees(tmp_path: Path) -> None:
    script = tmp_path / "look.py"
    script.write_text(TWO_RANKS)
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    launcher += ["--rdzv_endpoint", "localhost:0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
    for name, words in (("one", []), ("two", launcher)):
        command = [sys.executable, *words, str(script), str(tmp_path / name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    one = np.load(tmp_path / "one-0.npy")
    assert len(one) == 19
    for rank in range(2):
        np.testing.assert_array_equal(np.load(tmp_path / f"two-{rank}.npy"), one)
