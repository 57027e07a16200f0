"""Snapshots of a training: its state, the averaged generator as sampling needs it, a grid of samples, and scores."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import torch
from accelerate import Accelerator

from data.files.atomic import read_json
from data.files.checkpoints import BEST, described_weights, save_state, save_weights
from data.files.runs import read_metrics, to_json
from data.images import image_grid, save_png
from data.latents import LatentStore
from data.sizes import to_json_size
from data.spacing import spaced_rows
from stage1_autoencoder.training.clock import crossed
from stage1_autoencoder.training.run import Run
from stage2_codegen.configs.base import VariantConfig
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.health import SAMPLES as HEALTH_SAMPLES
from stage2_codegen.health import Health, HealthCheck
from stage2_codegen.image_generator import ImageGenerator
from stage2_codegen.moments import SettledAverage
from stage2_codegen.setup import Setup
from stage2_codegen.variants.contract import Batch

GRID_SEEDS = range(16)


class Scorer(NamedTuple):
    """A measure of generated images, and the settings on which its scores depend."""

    measure: Callable[[ImageGenerator], dict[str, float]]  # all ranks must call it; the first distance decides
    settings: dict[str, Any]  # scores with other settings are not compared


type MakeScorer = Callable[[TrainConfig[VariantConfig], LatentStore, Accelerator, Mapping[str, str]], Scorer]


class Snapshots:
    """Saves a run; all processes call every method, and the main one writes."""

    def __init__(self, name: str, setup: Setup, run: Run, scorer: Scorer | None, saved_nimg: int) -> None:
        """Take the run and what it saves; `saved_nimg` is the progress of the checkpoint from which it continues."""
        self._name, self._setup, self._run, self._scorer = name, setup, run, scorer
        config, step, store = setup.config, setup.step, setup.store
        self._settled = SettledAverage(step.G_ema, config.batch_size // config.accumulate)
        context, self._names = setup.context, setup.classes.names if setup.classes else []
        self._previews = ImageGenerator(
            self._settled.generator, context.scale, context.autoencoder, store.image_size, class_names=self._names
        )
        self._health = self._health_check() if run.main else None
        self.saved_nimg = saved_nimg
        self._scored_nimg = _last_scored(config.out, saved_nimg)

    def remember(self) -> None:
        """Repeat the judgement of the run's health from the rows of its log."""
        if self._health:
            self._health.remember(read_metrics(self._setup.config.out))

    def go_back(self) -> None:
        """Forget what was saved after the checkpoint to which the run has gone back."""
        self.saved_nimg = self._run.progress.nimg
        self._scored_nimg = min(self._scored_nimg, self.saved_nimg)
        self.remember()

    def complete(self) -> None:
        """Make what the newest checkpoint lacks, because the run was stopped before it was made."""
        nimg = self._run.progress.nimg
        if not nimg:
            return
        weights = described_weights(self._setup.config.out / "weights")
        if weights.get("nimg") == nimg and (scores := weights.get("scores")) and self._scored_nimg < nimg:
            self._record_scores(scores)
        self.save(whole=self._run.at_snapshot)

    def save(self, whole: bool = True) -> None:
        """Save the state and the weights, as far as they are not there already.

        A `whole` snapshot also has a row about the run's health, a score if one is due, and a grid.
        """
        setup, run, nimg = self._setup, self._run, self._run.progress.nimg
        config, step = setup.config, setup.step
        self._settled.refresh()
        if run.main:
            if whole and self._health and not _has_health(config.out, nimg):
                run.record(self._health().to_metrics())
            if nimg > self.saved_nimg:
                save_state(config.out / "checkpoints", step.networks, step.optimizers, run.progress, run.has_snapshot)
        self.saved_nimg = nimg
        scores: dict[str, float] = {}
        if self._scorer and whole and self._is_due(nimg):  # after the state, since it takes long
            with run.stop.at_once():
                scores = self._scorer.measure(self._previews)
        if run.main:
            self._write(nimg, scores)
        if scores:
            self._record_scores(scores)
        if run.main and whole:
            self._draw(nimg)
        run.accelerator.wait_for_everyone()
        run.saved()

    def _write(self, nimg: int, scores: dict[str, float]) -> None:
        out = self._setup.config.out
        if not scores and described_weights(out / "weights").get("nimg") == nimg:
            return
        settings = self._scorer.settings if self._scorer and scores else None
        described = self._describe(nimg) | {"scores": scores, "score_settings": settings}
        autoencoder = self._setup.context.autoencoder
        weights = {"generator": self._previews.generator.state_dict(), "autoencoder": autoencoder.state_dict()}
        save_weights(out / "weights", weights, described, _is_best(out, described))

    def _record_scores(self, scores: dict[str, float]) -> None:
        """Log scores, once the weights that have them are saved."""
        self._run.record({f"eval/{key}": value for key, value in scores.items()})
        self._scored_nimg = self._run.progress.nimg

    def _draw(self, nimg: int) -> None:
        grid = self._setup.config.out / "samples" / f"{nimg:09d}.png"
        if not grid.is_file():
            save_png(grid, image_grid(self._previews(GRID_SEEDS)))

    def _is_due(self, nimg: int) -> bool:
        """Whether to score at `nimg`: a multiple of the interval was passed, or training ends."""
        config = self._setup.config
        passed = crossed(nimg, nimg - self._scored_nimg, config.score_nimg)
        return passed or nimg >= config.total_nimg > self._scored_nimg

    def _health_check(self) -> HealthCheck:
        step, store, scale = self._setup.step, self._setup.store, self._setup.context.scale
        device, rows = step.accelerator.device, spaced_rows(len(store), min(HEALTH_SAMPLES, len(store)))
        codes = scale.to_codes(torch.from_numpy(store.read(rows)).to(device))
        classes = torch.from_numpy(self._setup.classes.of_row[rows]).to(device) if self._setup.classes else None
        real = Batch(codes.contiguous(memory_format=torch.channels_last), classes)
        return HealthCheck(self._previews, step.critic, self._previews.noise(range(HEALTH_SAMPLES)), real)

    def _describe(self, nimg: int) -> dict[str, Any]:
        """Everything that sampling needs besides the weights, and the origin of the store."""
        config, store, context = self._setup.config, self._setup.store, self._setup.context
        return {
            "kind": "generator",
            "variant": self._name,
            "model": to_json(config.model),
            "code_shape": list(store.code_shape),
            "scale": context.scale.to_json(),
            "frozen": context.identities,
            "image_size": to_json_size(store.image_size),
            "autoencoder": store.seal["autoencoder"],
            "autoencoder_fingerprint": store.fingerprint,
            "autoencoder_run": store.seal["autoencoder_run"],
            "store": str(config.store.resolve()),
            "data": store.seal["data"],
            "dtype": store.seal["dtype"],
            "flip": bool(store.seal.get("flip")),
            "mirror": config.mirror,
            "classes": self._names,
            "nimg": nimg,
        }


def _has_health(out: Path, nimg: int) -> bool:
    """Whether the log of a run has a row about its health at `nimg`."""
    return any(row["nimg"] == nimg and Health.of(row) for row in read_metrics(out))


def _last_scored(out: Path, nimg: int) -> int:
    """The progress at the last score of a run that is at `nimg`; 0 if it has none."""
    rows = read_metrics(out, tolerate_cut=True)
    return max((row["nimg"] for row in rows if row["nimg"] <= nimg and any("eval/" in key for key in row)), default=0)


class _Scored(TypedDict, total=False):
    """The shape of what the best weights say of their score."""

    scores: dict[str, float]


def _is_best(out: Path, described: Mapping[str, Any]) -> bool:
    """Whether the first score is smaller than that of the best weights so far, or cannot be compared with it."""
    if not described["scores"]:
        return False
    file = out / "weights" / BEST / "config.json"
    best = read_json(file, _Scored) if file.is_file() else {}
    name, value = next(iter(described["scores"].items()))
    return best.get("score_settings") != described["score_settings"] or value < best["scores"].get(name, math.inf)
