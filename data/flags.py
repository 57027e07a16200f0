"""Types of flags that several verbs have: what is typed, as the help should show it."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from data.limits import Count

_OPTIONAL = "(optional)"

PictureFormat = Literal["png", "jpeg", "webp"]
Data = Annotated[tuple[str, ...], tyro.conf.arg(metavar="DATA")]
Hosts = Annotated[tuple[str, ...], tyro.conf.arg(metavar="HOST")]
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint=_OPTIONAL)]
ClassFlag = Annotated[str | None, tyro.conf.arg(name="class", metavar="NAME", help_behavior_hint=_OPTIONAL)]
OptionalCount = Annotated[Count | None, tyro.conf.arg(metavar="INT", help_behavior_hint=_OPTIONAL)]
OptionalText = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint=_OPTIONAL)]
