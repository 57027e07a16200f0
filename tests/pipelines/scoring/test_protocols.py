"""A protocol is the paper's only when count, size, metrics and features are."""

from typing import Any

import pytest

from pipelines.scoring.protocols import PROTOCOLS, ProtocolName, departures

CHOICES = {
    "giu": ["the newest snapshot instead of the best of ten"],
    "fastgan": ["one training instead of the best of five"],
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_what_the_table_says_is_in_the_docstring(name: ProtocolName) -> None:
    from pipelines.scoring import protocols

    row = next(line for line in (protocols.__doc__ or "").splitlines() if line.startswith(f"| `{name}`"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    protocol = PROTOCOLS[name]
    assert cells[1] == f"{protocol.num:,}"
    assert cells[3] == ", ".join(protocol.metrics)
    assert cells[4] == (", ".join(map(str, protocol.sides)) or "its own")


def settings(name: ProtocolName, **changes: Any) -> dict[str, Any]:
    """What scores.json says of a scoring as in the paper, but for `changes`."""
    protocol = PROTOCOLS[name]
    size = protocol.sides[0] if protocol.sides else 100
    weights = {"nimg": 1000, "best": False}
    networks = {"features": "inception", "resize": "legacy_pytorch"}
    return {"protocol": name, "num": protocol.num, "size": size} | weights | networks | changes


def test_the_paper_s_own_setting_departs_in_nothing_but_its_choice_of_the_best() -> None:
    for name, protocol in PROTOCOLS.items():
        assert departures(settings(name), protocol.metrics) == CHOICES.get(name, [])


def test_every_departure_is_named() -> None:
    changed = settings("giu", num=300, size=128, features="squeezenet", resize="clean", nimg=None)
    assert departures(changed, ("is", "kid")) == [
        "at 300 instead of 50,000",
        "at 128 px instead of 32 or 64",
        "without fid",
        "on squeezenet features",
        "resized as clean-fid does",
        "the given images instead of the best of ten",
    ]
    assert departures(settings("single-image", resize="clean"), ("sifid",)) == []  # it resizes nothing
    assert departures(settings("giu", best=True), ("is", "fid")) == [
        "the best by kid snapshot instead of the best of ten"
    ]


def test_without_a_protocol_nothing_departs() -> None:
    assert departures(settings("giu", protocol=None), ()) == []
