"""Looking at pictures before they are encoded against decoding them: what it costs to know early what cannot be read.

    uv run python -m benchmarks.look flowers256.tar photos1024.tar [--count 36] [--rounds 3]

The first pictures of each archive are timed, those of the last one also enlarged fourfold, as large as a camera's, and
as PNG; one thread.
"""

import argparse
import io
from collections.abc import Callable, Sequence
from functools import partial

import torch
from PIL import Image

from benchmarks.machine import describe, interleaved
from data.sources.decoding import decode, probe
from data.sources.listing import list_entries


def enlarged(content: bytes, **options: bool) -> bytes:
    image, file = decode(content), io.BytesIO()
    larger = image.resize((4 * image.width, 4 * image.height), Image.Resampling.LANCZOS)
    larger.save(file, "JPEG", quality=92, **options)
    return file.getvalue()


def as_png(content: bytes) -> bytes:
    file = io.BytesIO()
    decode(content).save(file, "PNG")
    return file.getvalue()


def over(read: Callable[[bytes], object], pictures: Sequence[bytes]) -> None:
    for content in pictures:
        read(content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--count", type=int, default=36)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    kinds: dict[str, list[bytes]] = {}
    for archive in options.data:
        pictures = [entry.read() for entry in list_entries([archive]).entries[: options.count]]
        kinds[f"as they are in `{archive.rsplit('/', 1)[-1]}`"] = pictures
    kinds["the same, PNG"] = [as_png(content) for content in pictures]
    kinds["the same, enlarged"] = [enlarged(content) for content in pictures]
    kinds["the same, enlarged, progressive JPEG"] = [enlarged(content, progressive=True) for content in pictures]
    actions = {
        f"{kind}, {name}": partial(over, read, pictures)
        for kind, pictures in kinds.items()
        for name, read in (("decode", decode), ("probe", probe))
    }
    times = interleaved(actions, options.rounds)
    print(f"{describe()}; median of {options.rounds} rounds of {options.count} pictures, one thread\n")
    print("| pictures | pixels | decoded, ms each | looked at, ms each | ratio |\n|---|---|---|---|---|")
    for kind, pictures in kinds.items():
        decoded, probed = (1000 * times[f"{kind}, {name}"] / len(pictures) for name in ("decode", "probe"))
        size = " x ".join(map(str, decode(pictures[0]).size))
        print(f"| {kind} | {size} | {decoded:.2f} | {probed:.2f} | {probed / decoded:.2f} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
