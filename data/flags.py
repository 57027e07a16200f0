"""Types of flags that several verbs have: what is typed, as the help should show it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from data.limits import Count
from data.sizes import Size, parse_size, size_text

if TYPE_CHECKING:
    from data.sources.locations import Location

    type LocationArg = Location
else:  # as Any, since tyro would look up the members of `Location`, of which one may not be installed

    def _parse_location(texts):
        from data.sources.locations import parse_location  # late: help shows no location, and its clients load slowly

        return parse_location(texts[0])

    LocationArg = Annotated[
        Any,
        tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="PATH",
            instance_from_str=_parse_location,
            is_instance=lambda value: hasattr(value, "joinpath"),
            str_from_instance=lambda value: [str(value)],
        ),
    ]
"""The type of a flag that takes a `Location`; as a `Path`, `s3://bucket` would lose a slash."""

SizeArg = Annotated[
    Size,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="SIZE",
        instance_from_str=lambda texts: parse_size(texts[0]),
        is_instance=lambda value: isinstance(value, int | tuple),
        str_from_instance=lambda value: [size_text(value)],
    ),
]
_OPTIONAL = "(optional)"
_RUN = tyro.constructors.PrimitiveConstructorSpec[Path | str | None](
    nargs=1,
    metavar="RUN",
    # An address stays a text: as a path it would lose a slash.
    instance_from_str=lambda texts: texts[0] if "://" in texts[0] else Path(texts[0]),
    is_instance=lambda value: value is None or isinstance(value, Path | str),
    str_from_instance=lambda value: [str(value)],
)

PictureFormat = Literal["png", "jpeg", "webp"]
Data = Annotated[tuple[str, ...], tyro.conf.arg(metavar="DATA")]
RunArg = Annotated[Path | str, _RUN]
OptionalRun = Annotated[Path | str | None, _RUN, tyro.conf.arg(help_behavior_hint=_OPTIONAL)]
Hosts = Annotated[tuple[str, ...], tyro.conf.arg(metavar="HOST")]
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint=_OPTIONAL)]
ClassFlag = Annotated[str | None, tyro.conf.arg(name="class", metavar="NAME", help_behavior_hint=_OPTIONAL)]
OptionalCount = Annotated[Count | None, tyro.conf.arg(metavar="INT", help_behavior_hint=_OPTIONAL)]
OptionalText = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint=_OPTIONAL)]
