"""Writes command lines: the only place that knows how an action or a configuration is typed."""

import shlex
from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any

from data.advice import Action, Advice
from data.sources.locations import data_flags


def command(advice: Advice) -> list[str]:
    """The words to type; what the advice does not know is in capitals."""
    facts = advice.facts or {}
    data = data_flags(facts.get("data", ["DATA"]), facts.get("hosts", ()))
    store, run = str(facts.get("store", "STORE")), str(facts.get("run", "RUN"))
    match advice.action:
        case Action.INSPECT_DATA:
            words = ["inspect", *data[1:]]
        case Action.TRAIN_AUTOENCODER:
            words = ["train-ae", *data, "--out", "RUN"]
        case Action.ENCODE:
            chosen = ["--autoencoder", str(facts["autoencoder"])] if "autoencoder" in facts else []
            words = ["encode", *data, *chosen, "--out", "stores/latents"]
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
        case Action.SAMPLE:
            words = ["sample", "--run", run, "--out", "samples", "--num", "64"]
    return ["codegan", *words]


def followed_by(fix: str, advice: Advice | None) -> str:
    """The fix of an error, with the command that does it."""
    return f"{fix}: {shlex.join(command(advice))}" if advice else fix


def flags(values: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str = "--") -> list[str]:
    """The flags of fields whose values are not the defaults; a field without a default is always given."""
    words: list[str] = []
    for name, value in values.items():
        if value == defaults.get(name, MISSING):
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"{prefix}{flag}" if value else f"{prefix}no-{flag}")
        else:
            words += [f"{prefix}{flag}", *map(str, value if isinstance(value, tuple | list) else [value])]
    return words
