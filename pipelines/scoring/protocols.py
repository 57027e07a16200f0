"""Protocols: how papers scored their generators.

| protocol       | generated | against                | metrics | side           | source                          |
|----------------|-----------|------------------------|---------|----------------|---------------------------------|
| `accel`        | 50,000    | the training images    | fid     | 256, 512, 1024 | Liu, Yao, Ren, section 4.4      |
| `giu`          | 50,000    | the training images    | is, fid | 32, 64         | Tian et al., sections 1 and 5   |
| `fastgan`      | 5,000     | the whole training set | fid     | 256, 1024      | Liu et al. 2021, section 4      |
| `gca`          | 50,000    | the training images    | fid     | 64             | Peng et al., section 4          |
| `single-image` | 10        | the one training image | sifid   | its own        | Peng et al., section 4, fig. 6  |

`giu` and `fastgan` also choose: the best of ten snapshots of one training, and the best of five trainings. The best of
several says little about any one of them. FID and IS come from code that resizes without antialiasing, as was usual
before clean-fid; SIFID resizes nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

MetricName = Literal["fid", "kid", "is", "precision-recall", "density-coverage", "lpips-diversity", "modes", "sifid"]
ProtocolName = Literal["accel", "giu", "fastgan", "gca", "single-image"]


class Protocol(NamedTuple):
    num: int  # images to generate
    metrics: tuple[MetricName, ...]
    sides: tuple[int, ...]  # that the paper has scores of, in pixels; any when empty
    source: str
    best_of: tuple[str, str] | None = None  # what was scored several times for the best, and how often


PROTOCOLS: dict[ProtocolName, Protocol] = {
    "accel": Protocol(50_000, ("fid",), (256, 512, 1024), "Liu, Yao, Ren, section 4.4"),
    "giu": Protocol(50_000, ("is", "fid"), (32, 64), "Tian et al., sections 1 and 5", ("snapshot", "ten")),
    "fastgan": Protocol(5_000, ("fid",), (256, 1024), "Liu et al. 2021, section 4", ("training", "five")),
    "gca": Protocol(50_000, ("fid",), (64,), "Peng et al., section 4"),
    "single-image": Protocol(10, ("sifid",), (), "Peng et al., figure 6"),
}


def departures(settings: Mapping[str, Any], metrics: Sequence[str], best_taken: bool = False) -> list[str]:
    """How a scoring, with `settings` as in scores.json, departs from the paper of its protocol: a phrase each.

    Empty where all is as in the paper, and without a protocol. `best_taken` says that the best of several such scorings
    is chosen, as in the paper; a size of None is not compared.
    """
    if settings["protocol"] is None:
        return []
    protocol, num, size = PROTOCOLS[settings["protocol"]], settings["num"], settings["size"]
    found = []
    if num != protocol.num:
        found.append(f"at {num:,} instead of {protocol.num:,}")
    if protocol.sides and size is not None and size not in protocol.sides:
        found.append(f"at {size} px instead of {' or '.join(map(str, protocol.sides))}")
    if missing := [metric for metric in protocol.metrics if metric not in metrics]:
        found.append(f"without {', '.join(missing)}")
    if settings["features"] != "inception":
        found.append(f"on {settings['features']} features")
    if settings["resize"] == "clean" and protocol.metrics != ("sifid",):
        found.append("resized as clean-fid does")
    if protocol.best_of and not best_taken:
        kind, count = protocol.best_of
        snapshot = "the best by kid snapshot" if settings["best"] else "the newest snapshot"
        if settings["nimg"] is None:  # no run was scored
            snapshot = "the given images"
        found.append(f"{snapshot if kind == 'snapshot' else f'one {kind}'} instead of the best of {count}")
    return found
