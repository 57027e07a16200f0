"""Writes command lines: the only place that knows how an action or a configuration is typed."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.advice import Action, Advice


def command(advice: Advice) -> list[str]:
    """The words to type; what the advice does not know is in capitals."""
    from data.sources.locations import data_flags  # late: its clients load slowly, and help needs none

    facts = advice.facts or {}
    data = data_flags(facts.get("data", ["DATA"]), facts.get("hosts", ()))
    store, run = str(facts.get("store", "STORE")), str(facts.get("run", "RUN"))
    match advice.action:
        case Action.INSPECT_DATA:
            words = ["inspect", *data[1:]]
        case Action.TRAIN_AUTOENCODER:
            words = ["train-ae", *data, "--out", "RUN"]
        case Action.ENCODE:
            named = {"autoencoder": "--autoencoder", "size": "--size", "max_skip": "--max-skip"}
            chosen = [word for fact, flag in named.items() if fact in facts for word in (flag, str(facts[fact]))]
            words = ["encode", *data, *chosen, "--out", f"stores/{_name(facts.get('data', []))}"]
        case Action.ENCODE_PIXELS:
            words = ["encode", *data, "--autoencoder", "pixels", "--out", "stores/pixels"]
        case Action.REPAIR_STORE:
            words = ["encode", "--repair", "--out", store]
        case Action.CHECK:
            words = ["check", str(facts["path"])]
        case Action.DESCRIBE_IMAGES:
            words = ["metadata", "--store", store, "--weights", "FILE"]
        case Action.TRAIN_GENERATOR:
            words = ["train", "--store", store, "--out", str(facts.get("out", "RUN"))]
        case Action.REPORT:
            words = ["report", "--run", run, *(data if "data" in facts else [])]
        case Action.SAMPLE:
            words = ["sample", "--run", run, "--out", "samples", "--num", "64"]
    return ["codegan", *words]


def _name(data: Sequence[str]) -> str:
    """What a store of this data may be called."""
    name = Path(data[0].partition(":")[0] if "://" not in data[0] else "").stem if len(data) == 1 else ""
    return name if re.fullmatch(r"\w[\w.-]*", name) else "latents"


def followed_by(fix: str, advice: Advice | None) -> str:
    """The fix of an error, with the command that does it."""
    return f"{fix}: {shlex.join(command(advice))}" if advice else fix


def flags(values: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str = "--") -> list[str]:
    """The words that set fields of a configuration, both as JSON has them.

    Switches and empty lists are given only where they are not the default, and None never, since it cannot be typed.
    """
    words: list[str] = []
    for name, value in values.items():
        word, default = name.replace("_", "-"), defaults.get(name)
        if isinstance(value, dict):
            words += flags(value, default or {}, f"{prefix}{word}.")
        elif isinstance(value, bool) or value == []:
            switch = f"{prefix}no-{word}" if value is False else f"{prefix}{word}"
            words += [] if value == default else [switch]
        elif value is not None:
            words += [f"{prefix}{word}", *map(str, value if isinstance(value, list) else [value])]
    return words


def changed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not the defaults, of inner objects as well."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            kept[name] = changed(value, defaults.get(name) or {})
        elif name not in defaults or value != defaults[name]:
            kept[name] = value
    return kept
