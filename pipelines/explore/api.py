"""What the page may ask for: addresses, their parameters and limits, and the answers.

    GET  /api/runs                                     what is known of every run
    GET  /api/images   run, seeds                      samples
    GET  /api/picture  run, point [amounts]            a picture, moved along the first directions
    GET  /api/walk     run, corners, x, y              a point between four pictures
    GET  /api/mix      run, content, style [gates]     one picture in the style of another
    POST /api/project  run [steps]                     the body, a picture file, as the generator would draw it

All but the first also take `class`, and all that draw seeds take `truncation`. `picture`, `walk` and `mix` answer with
a PNG, the others with JSON. A point is a seed, as in 12, or what `project` answered, as in p0; corners, contents and
styles are points.
"""

import base64
import json
import math
import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from data.errors import InputError, UsageError
from data.images import fit, to_array, to_png
from data.limits import Limit
from data.sources.decoding import Unreadable, decode
from pipelines.explore.explorer import DIRECTIONS, Explorer, Picture, Settings
from pipelines.seeds import parse_seeds

MOST_PARAMETERS = 20
MOST_SEEDS = 64  # in one request
SHARE = Limit(least=0, most=1)
AMOUNT = Limit(least=-10, most=10)  # deviations of the noise
TRUNCATION = Limit(least=0, most=2)
STEPS = Limit(least=1, most=1000)
DEFAULT_STEPS = 200
CORNERS = 4


class Refusal(Exception):
    """An answer with a status of its own; whatever else is wrong with a request is a `CodeganError`."""

    def __init__(self, status: HTTPStatus, what: str, fix: str) -> None:
        super().__init__(what)
        self.status, self.what, self.fix = status, what, fix


class Answer(NamedTuple):
    content: bytes
    kind: str


def as_json(value: Any) -> Answer:
    return Answer(json.dumps(value).encode(), "application/json")


class Query:
    """The parameters of a request, each taken once by its name; `end` complains of those that nobody took."""

    def __init__(self, text: str) -> None:
        try:
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_PARAMETERS)
        except ValueError as error:
            raise UsageError("too many parameters", f"give at most {MOST_PARAMETERS}") from error
        self._values = dict(pairs)
        if len(self._values) < len(pairs):
            raise UsageError("a parameter is given twice", "give each once")

    def end(self) -> None:
        for name in self._values:
            raise UsageError(f"{name}: is not a parameter of this address", "leave it out")

    def text(self, name: str) -> str | None:
        return self._values.pop(name, None)

    def required(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise UsageError(f"{name}: is missing", f"add {name}=... to the address")
        return value

    def whole(self, name: str, limit: Limit, default: int | None = None) -> int:
        if default is not None and name not in self._values:
            return default
        value = self.required(name)
        if not re.fullmatch(r"\d{1,18}", value, re.ASCII):
            raise UsageError(f"{name} {value}: is not a whole number", f"give {limit}")
        return int(_checked(name, int(value), limit))

    def number(self, name: str, limit: Limit, default: float | None = None) -> float:
        if default is not None and name not in self._values:
            return default
        return _number(name, self.required(name), limit)

    def numbers(self, name: str, limit: Limit, most: int) -> list[float]:
        """Numbers with commas between them; none where the parameter is absent."""
        if name not in self._values:
            return []
        words = self.required(name).split(",")
        if len(words) > most:
            raise UsageError(f"{name}: are {len(words)}", f"give at most {most}")
        return [_number(name, word, limit) for word in words]

    def settings(self) -> Settings:
        return Settings(self.text("class"), self.number("truncation", TRUNCATION, 1.0))


def _number(name: str, value: str, limit: Limit) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{name} {value}: is not a number", f"give {limit}")
    return _checked(name, number, limit)


def _checked(name: str, number: float, limit: Limit) -> float:
    if not limit.admits(number):
        raise UsageError(f"{name} {number}: is out of range", f"give {limit}")
    return number


Explorers = Sequence[Explorer]


def runs(explorers: Explorers, query: Query, body: bytes) -> Answer:
    query.end()
    return as_json({"runs": [explorer.facts for explorer in explorers]})


def images(explorers: Explorers, query: Query, body: bytes) -> Answer:
    explorer, settings = _explorer(explorers, query), query.settings()
    seeds = parse_seeds("seeds", query.required("seeds"), MOST_SEEDS)
    query.end()
    return as_json({"images": [{"seed": seed, "png": _text(explorer.sample(seed, settings))} for seed in seeds]})


def picture(explorers: Explorers, query: Query, body: bytes) -> Answer:
    explorer, settings = _explorer(explorers, query), query.settings()
    point, amounts = query.required("point"), query.numbers("amounts", AMOUNT, DIRECTIONS)
    query.end()
    return _as_png(explorer.shifted(point, amounts, settings))


def walk(explorers: Explorers, query: Query, body: bytes) -> Answer:
    explorer, settings = _explorer(explorers, query), query.settings()
    corners, x, y = query.required("corners").split(","), query.number("x", SHARE), query.number("y", SHARE)
    query.end()
    if len(corners) != CORNERS:
        raise UsageError(f"corners: are {len(corners)} pictures", f"give {CORNERS} with commas between them")
    return _as_png(explorer.between(corners, x, y, settings))


def mix(explorers: Explorers, query: Query, body: bytes) -> Answer:
    explorer, settings = _explorer(explorers, query), query.settings()
    content, style, gates = query.required("content"), query.required("style"), query.text("gates")
    query.end()
    chosen = None if gates is None else parse_seeds("gates", gates, MOST_SEEDS)
    return _as_png(explorer.mixed(content, style, chosen, settings))


def project(explorers: Explorers, query: Query, body: bytes) -> Answer:
    explorer, class_name = _explorer(explorers, query), query.text("class")
    steps = query.whole("steps", STEPS, DEFAULT_STEPS)
    query.end()
    try:
        given = to_array(fit(decode(body), explorer.image_size))
    except Unreadable as reason:
        raise InputError(f"this picture cannot be used: {reason}", "choose a JPEG, PNG or WEBP file") from reason
    found = explorer.project(given, steps, class_name)
    return as_json({"point": found.point, "psnr": found.psnr, "png": _text(found.picture)})


ROUTES: dict[tuple[str, str], Callable[[Explorers, Query, bytes], Answer]] = {
    ("GET", "/api/runs"): runs,
    ("GET", "/api/images"): images,
    ("GET", "/api/picture"): picture,
    ("GET", "/api/walk"): walk,
    ("GET", "/api/mix"): mix,
    ("POST", "/api/project"): project,
}


def _explorer(explorers: Explorers, query: Query) -> Explorer:
    run = query.required("run")
    if not re.fullmatch(r"\d{1,6}", run, re.ASCII) or int(run) >= len(explorers):
        known = "0" if len(explorers) == 1 else f"from 0 to {len(explorers) - 1}"
        raise Refusal(HTTPStatus.NOT_FOUND, f"run {run}: is not shown here", f"the runs are {known}")
    return explorers[int(run)]


def _as_png(picture: Picture) -> Answer:
    return Answer(to_png(picture), "image/png")


def _text(picture: Picture) -> str:
    """A PNG as JSON can hold it."""
    return base64.b64encode(to_png(picture)).decode()
