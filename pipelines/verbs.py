"""The verbs of the command line: their flags, where the work is done, and an example of each."""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from data.advice import Done
from pipelines import configs
from pipelines.scoring.config import ScoreConfig
from stage1_autoencoder.configs import EncodeConfig, TrainAEConfig
from stage2_codegen.configs.train import TrainConfig


class Verb(NamedTuple):
    config: Any  # a configuration, generic where the verb is `of_variant`
    run: str  # "module:function", imported when the verb is typed
    summary: str
    example: str  # what may follow `codegan VERB`
    shared: bool = False  # among processes, by --processes
    of_variant: bool = False  # `codegan VERB VARIANT ...`
    resumes: bool = False  # what was interrupted, so that SIGTERM has an exit code of its own

    def load(self) -> Callable[..., Done | None]:
        """The function that does the work; loads torch, which takes seconds."""
        module, _, function = self.run.partition(":")
        loaded: Callable[..., Done | None] = getattr(importlib.import_module(module), function)
        return loaded


VERBS = {
    "demo": Verb(
        configs.DemoConfig,
        "pipelines.demo:demo",
        "both stages, samples, scores and a report; needs no input",
        "--out runs/demo",
        resumes=True,
    ),
    "inspect": Verb(
        configs.InspectConfig,
        "pipelines.inspect:inspect",
        "what is in a data set, or what a run's networks see",
        "photos/ --out runs/inspect",
    ),
    "train-ae": Verb(
        TrainAEConfig,
        "stage1_autoencoder.train:train",
        "train the autoencoder",
        "--data photos/ --out runs/ae --kimg 200",
        shared=True,
        resumes=True,
    ),
    "encode": Verb(
        EncodeConfig,
        "pipelines.encode:encode",
        "encode images into a latent store",
        "--data photos/ --out stores/photos256 --size 256",
        shared=True,
        resumes=True,
    ),
    "metadata": Verb(
        configs.MetadataConfig,
        "pipelines.metadata:metadata",
        "describe a store's images by VGG-16 vectors",
        "--store stores/photos256 --weights vgg16-397923af.pth",
    ),
    "plan": Verb(
        configs.PlanConfig,
        "pipelines.plan:plan",
        "what training would take, by trying it",
        "VARIANT --store stores/photos256 --kimg 200",
        of_variant=True,
    ),
    "train": Verb(
        TrainConfig,
        "pipelines.train:train",
        "train a code generator on a store",
        "VARIANT --store stores/photos256 --out runs/photos --kimg 200",
        shared=True,
        of_variant=True,
        resumes=True,
    ),
    "models": Verb(
        configs.ModelsConfig,
        "pipelines.models:models",
        "size and cost of every variant",
        "--channels 3 --sizes 32 64 256",
    ),
    "sample": Verb(
        configs.SampleConfig,
        "pipelines.sample:sample",
        "draw full-resolution images",
        "--run runs/photos --out samples --num 64",
        shared=True,
    ),
    "walk": Verb(
        configs.WalkConfig,
        "pipelines.walk:walk",
        "a film from seed to seed",
        "--run runs/photos --out walk.webp --seeds 3,7,12 --frames 120 --loop",
    ),
    "mix": Verb(
        configs.MixConfig,
        "pipelines.mix:mix",
        "contents of some pictures in the styles of others",
        "--run runs/photos --out mix.png --contents 0-5 --styles 6-9",
    ),
    "project": Verb(
        configs.ProjectConfig,
        "pipelines.project:project",
        "your own pictures in a generator",
        "--run runs/photos --data mine/ --out projected",
        resumes=True,
    ),
    "explore": Verb(
        configs.ExploreConfig,
        "pipelines.explore.server:explore",
        "a page to play with generators",
        "runs/photos",
    ),
    "export": Verb(
        configs.ExportConfig,
        "pipelines.export:export",
        "a generator for other programs or people",
        "--run runs/photos --onnx photos.onnx",
    ),
    "push": Verb(
        configs.PushConfig,
        "pipelines.push:push",
        "an exported generator on the Hugging Face hub",
        "photos-hub/ --to hf://USER/photos",
    ),
    "score": Verb(
        ScoreConfig,
        "pipelines.scoring.score:score",
        "distance between generated and real images",
        "--run runs/flowers --data flowers.zip",
        shared=True,
    ),
    "report": Verb(
        configs.ReportConfig,
        "pipelines.report.report:report",
        "one HTML page about a run",
        "--run runs/photos",
    ),
    "reproduce": Verb(
        configs.ReproduceConfig,
        "pipelines.reproduce.reproduce:reproduce",
        "a table of a paper, with its numbers and those measured",
        "gca --table 1 --data celeba=celeba/ --scale 0.1 --out runs/gca-1",
        resumes=True,
    ),
    "check": Verb(
        configs.CheckConfig,
        "pipelines.check:check",
        "verify every byte of a store or a run",
        "runs/photos",
    ),
}
