"""The share of a training step that is spent waiting for latents, read from a run's own log.

uv run python -m benchmarks.data_wait RUN [RUN ...]
"""

import sys
from pathlib import Path

import numpy as np

from benchmarks.machine import describe
from data.files.runs import read_metrics


def main() -> None:
    print(f"{describe()}\n\n| run | images | s/kimg, median | waiting for data, mean |\n|---|---|---|---|")
    for name in sys.argv[1:]:
        rows = [row for row in read_metrics(Path(name)) if "time/data_share" in row]
        pace = np.median([row["time/sec_per_kimg"] for row in rows])
        wait = np.mean([row["time/data_share"] for row in rows])
        print(f"| {Path(name).name} | {rows[-1]['nimg']} | {pace:.1f} | {wait:.2%} |")


if __name__ == "__main__":
    main()
