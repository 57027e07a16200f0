"""The work behind a row: an autoencoder, a store, trainings, scores; each step is made once and resumed.

OUT/autoencoders/4            runs of stage one, by factor
OUT/stores/celeba-64-pixels   by data set, size and factor
OUT/runs/ROW-seed0            runs of stage two, with a file of scores for each snapshot that is scored
"""

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch

from data.errors import MismatchError, UsageError
from data.files.atomic import read_json, write_json
from data.files.runs import read_metrics
from pipelines.configs import MetadataConfig
from pipelines.metadata import metadata
from pipelines.models import cost
from pipelines.reproduce.paper import AUTOENCODER_SIDE, CODE_CHANNELS, AutoencoderTraining, Row, Training
from pipelines.reproduce.plan import RESIZE, Plan, measurable
from pipelines.sample import load_generator
from pipelines.scoring.config import ScoreConfig
from pipelines.scoring.networks import load_features, score_name
from pipelines.scoring.score import compute_scores
from stage1_autoencoder.configs import EncodeConfig, TrainAEConfig
from stage1_autoencoder.encode import encode
from stage1_autoencoder.networks import PIXELS, Autoencoder
from stage1_autoencoder.train import train as train_autoencoder
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.train import train
from stage2_codegen.variants import build_networks

LEAST_SNAPSHOT_KIMG = 10.0  # between two of a training, each a checkpoint and a preview
SNAPSHOTS = 100  # in a training that is long enough
DRAWN, DRAWN_AT_ONCE = 100, 10  # images whose drawing is timed

type Measured = dict[str, float | None]  # by measure; None where there was too little to measure


class Trainings:
    """Trains and measures the rows of a plan, which share autoencoders and stores."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._made = set[Path]()  # or found complete, by this call

    def check(self) -> None:
        """Raise for what would otherwise fail after hours: networks of impossible sizes, and missing weights."""
        config, table = self._plan.config, self._plan.table
        given = Autoencoder.load(config.autoencoder) if config.autoencoder else None
        for row in self._plan.rows:
            if not isinstance(row.training, Training):
                continue
            factor = row.training.factor
            if given and factor > 1 and (given.factor, given.code_channels) != (factor, CODE_CHANNELS):
                what = f"row {row.name}: is of {CODE_CHANNELS} channels at factor {factor}"
                form = f"{given.code_channels} at factor {given.factor}"
                raise MismatchError(
                    f"{what}, and {config.autoencoder} has {form}", "name the rows that fit with --rows"
                )
            shape = row.training.code_shape(config.size)
            try:
                build_networks(row.training.variant, shape, **row.training.model)
            except UsageError as error:
                what = f"row {row.name}: {error.what}"
                raise UsageError(what, f"{error.fix}; or choose another --size, or other --rows") from error
        if measurable(config, table):
            load_features(config.features, config.feature_weights, torch.device("cpu"), RESIZE)

    def run(self, row: Row) -> dict[str, Any]:
        """Train and measure a row: {"measured": by measure, "trainings": what each gave}.

        Raises what the steps raise, `DivergedError` among them.
        """
        if isinstance(row.training, AutoencoderTraining):
            run = self._autoencoder(row.training.factor, row.training.kimg, self._plan.sources[row.data].data)
            return {"measured": _reconstructions(run, self._plan.table.measures), "trainings": [{"run": str(run)}]}
        assert row.training
        trainings = [self._train(row, row.training, seed) for seed in self._plan.seeds]
        return {"measured": self._best(trainings)["measured"], "trainings": trainings}

    def _best(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """The result with the smallest Frechet distance, or the first one without such scores."""
        if "fid" not in measurable(self._plan.config, self._plan.table):
            return results[0]
        return min(results, key=lambda result: result["measured"]["fid"])

    def _autoencoder(self, factor: int, kimg: float, data: tuple[str, ...]) -> Path:
        config = self._plan.config
        out = self._plan.out / "autoencoders" / str(factor)
        ae = TrainAEConfig(
            data=data,
            out=out,
            factor=factor,
            code_channels=CODE_CHANNELS,
            size=AUTOENCODER_SIDE,
            kimg=kimg * config.scale,
            allow_host=config.allow_host,
        )
        if out not in self._made:
            train_autoencoder(ae)
            self._made.add(out)
        return out

    def _store(self, data: str, size: int, factor: int) -> Path:
        """The latents of a data set, encoded once."""
        plan = self._plan
        out = plan.out / "stores" / f"{data}-{size}-{factor if factor > 1 else PIXELS}"
        if out not in self._made:
            autoencoder = Path(PIXELS)
            if factor > 1 and plan.config.autoencoder:
                autoencoder = plan.config.autoencoder
            elif factor > 1 and plan.autoencoder_source:
                autoencoder = self._autoencoder(factor, plan.paper.autoencoder_kimg, plan.autoencoder_source.data)
            source = plan.sources[data].data
            hosts = plan.config.allow_host
            encode(EncodeConfig(data=source, autoencoder=autoencoder, out=out, size=(size,), allow_host=hosts))
            self._made.add(out)
        return out

    def _model(self, training: Training, store: Path) -> Mapping[str, Any]:
        """Fields of the variant that name files of VGG-16's, where its weights are given."""
        weights = self._plan.config.vgg_weights
        if training.vgg == "lpips" and weights:
            return {"reconstruct": "lpips", "vgg_weights": str(weights)}
        if training.vgg == "metadata" and weights:
            out = store.with_name(f"{store.name}-metadata")
            hosts = self._plan.config.allow_host
            metadata(MetadataConfig(store=store, weights=weights, out=out, allow_host=hosts))
            return {"metadata": str(out)}
        return {}

    def _train(self, row: Row, training: Training, seed: int) -> dict[str, Any]:
        """One training: what it measured, and where it lies."""
        plan, size = self._plan, self._plan.size(training)
        store = self._store(row.data, size, training.factor)
        run = plan.out / "runs" / f"{row.name}-seed{seed}"
        model = training.config(**self._model(training, store))
        kimg = training.kimg * plan.config.scale
        snapshots: dict[int, Measured] = {}
        for part in range(1, plan.table.snapshots + 1):
            config = TrainConfig(
                store=store,
                out=run,
                model=model,
                kimg=kimg * part / plan.table.snapshots,
                batch_size=training.batch_size,
                snapshot_kimg=max(LEAST_SNAPSHOT_KIMG, kimg / SNAPSHOTS),
                mirror=training.mirror,
                precision="fp32",
                seed=seed,
                allow_host=plan.config.allow_host,
            )
            if config.total_nimg not in snapshots:
                snapshots[config.total_nimg] = self._snapshot(row, training.variant, config)
        results = [{"nimg": nimg, "measured": scores} for nimg, scores in snapshots.items()]
        scores = self._best(results)["measured"]
        return {"run": str(run), "seed": seed, "measured": scores | self._costs(training, run), "snapshots": results}

    def _snapshot(self, row: Row, variant: str, config: TrainConfig[Any]) -> Measured:
        """Train until `kimg`, and score what the generator then draws."""
        plan, nimg, features = self._plan, config.total_nimg, self._plan.config.features
        names = {metric: score_name(features, metric) for metric in measurable(plan.config, plan.table)}
        path = config.out / "scores" / f"{nimg}-{plan.num}-{features}.json"
        scored = read_json(path) if path.is_file() else {}
        train(variant, config)  # also where it is complete, since this refuses a run of other settings
        if set(names.values()) <= scored.keys():
            return {metric: scored[name]["value"] for metric, name in names.items()}
        if _nimg(config.out) != nimg:
            what = f"{config.out}: has been trained beyond image {nimg}, where it has to be scored"
            raise MismatchError(what, "choose another --out")
        scored, _ = compute_scores(
            ScoreConfig(
                data=plan.sources[row.data].data,
                run=config.out,
                num=plan.num,
                metrics=tuple(names),
                force_fid=True,
                features=features,
                feature_weights=plan.config.feature_weights,
                resize=RESIZE,
                allow_host=plan.config.allow_host,
                out=path,
            )
        )
        return {metric: scored[name]["value"] for metric, name in names.items()}

    def _costs(self, training: Training, run: Path) -> Measured:
        """What the networks, and their training and drawing on this machine, take."""
        wanted = self._plan.table.measures
        costs: Measured = {}
        if {"parameters", "generator", "critic"} & set(wanted):
            taken = cost(training.variant, training.code_shape(self._plan.config.size), **training.model)
            costs["generator"] = taken.generator_parameters / 1e6
            costs["critic"] = taken.critic_parameters / 1e6
            costs["parameters"] = (taken.generator_parameters + taken.critic_parameters) / 1e6
        rows = read_metrics(run, tolerate_cut=True)
        pace = [row["time/sec_per_kimg"] for row in rows if "time/sec_per_kimg" in row]
        memory = [row["memory/peak_mb"] for row in rows if "memory/peak_mb" in row]
        costs["minutes"] = median(pace) * 30 / 60 if pace else None
        costs["hours"] = median(pace) * 10 * training.batch_size / 3600 if pace else None
        costs["memory"] = max(memory) / 1000 if memory else None
        if "drawing" in wanted:
            costs["drawing"] = _drawing_time(run)
        return {name: value for name, value in costs.items() if name in wanted}


def _nimg(run: Path) -> int:
    """Images that the weights of a run have been trained on."""
    return int(read_json(run / "weights" / "config.json")["nimg"])


def _reconstructions(run: Path, measures: tuple[str, ...]) -> Measured:
    """The errors at each size; None where no held-out image is that large."""
    errors = {f"mse-{row['size']}": row["mse"] for row in read_json(run / "reconstructions.json")["rows"]}
    return {measure: errors.get(measure) for measure in measures}


def _drawing_time(run: Path) -> float:
    """Seconds for 100 images, after a batch that does not count; measured once for a run."""
    path = run / "drawing.json"
    if path.is_file():
        return float(read_json(path)["seconds"])
    generator = load_generator(run)
    generator(range(DRAWN_AT_ONCE))
    started = time.monotonic()
    for first in range(0, DRAWN, DRAWN_AT_ONCE):
        generator(range(first, first + DRAWN_AT_ONCE))
    seconds = time.monotonic() - started
    write_json(path, {"images": DRAWN, "batch": DRAWN_AT_ONCE, "seconds": seconds})
    return seconds


def machine() -> str:
    """What the measured times belong to."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"a CPU with {threads} thread{'s' if threads > 1 else ''}"
