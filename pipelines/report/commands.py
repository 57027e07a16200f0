"""The commands that a report names: the one that made a run, and the one that scores it."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.files.runs import defaults, to_json
from data.sources.locations import data_flags
from pipelines.commands import flags
from pipelines.scoring.config import UNBIASED_FROM
from stage1_autoencoder.configs import TrainAEConfig
from stage2_codegen.configs.registry import CONFIGS
from stage2_codegen.configs.train import TrainConfig

KINDS = {"generator": "train", "autoencoder": "train-ae"}  # the verb that makes such a run
_NOT_FLAGS = ("kind", "variant", "store_checksum", "data_fingerprint", "frozen", "versions")
_DECIDED = ("classes",)  # fields of a variant that the data decides
_SCORE_DEFAULTS = {"protocol": None, "features": "inception", "resize": "clean", "num": None, "seed": 0}


def reproducing_command(config: Mapping[str, Any]) -> str:
    """The command line whose resolved configuration is this config.json."""
    words = ["codegan", KINDS[config["kind"]], *([config["variant"]] if "variant" in config else [])]
    given = {name: value for name, value in config.items() if name not in _NOT_FLAGS}
    if "model" in given:
        given["model"] = {name: value for name, value in given["model"].items() if name not in _DECIDED}
    return shlex.join([*words, *flags(given, _defaults(config))])


def _defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run has without flags, as JSON has it; a variant that this version does not know has no defaults."""
    if config["kind"] == "autoencoder":
        usual = defaults(TrainAEConfig)
    else:
        known = CONFIGS.get(config.get("variant", ""))
        usual = defaults(TrainConfig) | ({"model": defaults(known)} if known else {})
    return {name: to_json(value) for name, value in usual.items()}


def score_command(run: Path, data: Sequence[str], measured: Mapping[str, Any]) -> str:
    """The command that scores a run in the way that a file says it was `measured` before, {} for the usual one."""
    words = ["codegan", "score", "--run", str(run), *data_flags(data, ())]
    for name, default in _SCORE_DEFAULTS.items():
        if (value := measured.get(name)) not in (None, default):
            words += [f"--{name}", str(value)]
    if isinstance(metrics := measured.get("metrics"), list):
        words += ["--metrics", *map(str, metrics)]
        if "lpips-diversity" in metrics:
            words += ["--vgg-weights", "FILE"]
        if "fid" in metrics and measured.get("features") == "inception" and measured.get("num", 0) < UNBIASED_FROM:
            words += ["--force-fid"]
    if measured.get("features") == "squeezenet":
        words += ["--feature-weights", "FILE"]
    return shlex.join([*words, "--best"] if measured.get("best") else words)
