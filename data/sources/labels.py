"""Labels of images that a JSON file states: one file beside each image, or `dataset.json` for all."""

from typing import Any, NamedTuple

from data.strict_json import BadJSON, parse

DATASET_JSON = "dataset.json"
MAX_BYTES = 64 << 20  # of dataset.json, whose 1.3 million lines for ImageNet take 60 MB
MAX_SAMPLE_BYTES = 1 << 20  # of the JSON beside one image
_NAMES = ("label", "cls")


class Stated(NamedTuple):
    """What a JSON file says about labels."""

    labels: dict[str, int] | None  # by name of image; None if the file is about something else
    note: str = ""


def parse_dataset_json(content: bytes) -> Stated:
    """Read StyleGAN2-ADA's form, {"labels": [["00000/img.png", 6], ...]}; null states that there are no labels."""
    try:
        value = parse(content, Any, MAX_BYTES)
    except BadJSON as error:
        return Stated(None, f"not used: {error}")
    if not isinstance(value, dict) or "labels" not in value:
        return Stated(None, 'not used: has no "labels"')
    rows = value["labels"]
    if rows is None:
        return Stated({})
    if not isinstance(rows, list) or not all(map(_is_row, rows)):
        return Stated({}, "not used: its labels are not pairs of a name and an integer, so the images have none")
    return Stated(dict(rows))


def parse_sample_json(content: bytes) -> tuple[int | None, str]:
    """The integer "label" or "cls" of one image, and a note if there is something else in its place."""
    try:
        value = parse(content, Any, MAX_SAMPLE_BYTES, allow_nan=True)  # whatever is not about labels may stand there
    except BadJSON as error:
        return None, f"not used: {error}"
    stated = [value[name] for name in _NAMES if name in value] if isinstance(value, dict) else []
    label = next(filter(_is_label, stated), None)
    return label, "not used: its label is not an integer" if stated and label is None else ""


def _is_row(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) and _is_label(row[1])


def _is_label(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18  # fits into 64 bits
