"""The whole pipeline on procedural scenes, in minutes on a CPU: the same verbs a user types, with short trainings."""

from pathlib import Path

from pipelines.configs import DemoConfig, ReportConfig, SampleConfig
from pipelines.report.report import report
from pipelines.sample import sample
from pipelines.scoring.config import ScoreConfig
from pipelines.scoring.score import score
from stage1_autoencoder.configs import EncodeConfig, TrainAEConfig
from stage1_autoencoder.default import DEFAULT
from stage1_autoencoder.encode import encode
from stage1_autoencoder.train import train
from stage1_autoencoder.training.precision import fast_precision
from stage2_codegen.configs.projected import ProjectedConfig
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.train import train as train_generator

SCENES, SIZE = 1200, 64
AE_KIMG_A_MINUTE, GAN_KIMG_A_MINUTE = 0.1, 2.0  # thousands of images for each of the user's minutes


def demo(config: DemoConfig) -> None:
    """Train, encode, train, sample, score and report into `out`; every step is skipped or resumed when repeated."""
    scenes = max(64, round(SCENES * min(1, config.minutes / 4)))
    out, data = config.out, (f"scenes:{scenes}@{SIZE}",)
    ae_run, store, run = out / "autoencoder", out / "latents", out / "generator"
    precision = fast_precision()
    ae = TrainAEConfig(
        data=data,
        out=ae_run,
        init=Path(DEFAULT),
        size=SIZE,
        kimg=AE_KIMG_A_MINUTE * config.minutes,
        lr=3e-4,
        lr_ramp_kimg=0.0,
        adversarial_weight=0.0,
        mirror=True,
        snapshot_kimg=AE_KIMG_A_MINUTE * config.minutes,
        seed=config.seed,
        precision=precision,
    )
    _say(1, f"the packaged autoencoder, fine-tuned on {ae.kimg:g} thousand crops of {data[0]}")
    train(ae)
    _say(2, "encode every scene once")
    encode(EncodeConfig(data=data, autoencoder=ae_run, out=store, size=(SIZE,), precision=precision))
    kimg = GAN_KIMG_A_MINUTE * config.minutes
    gan = TrainConfig(
        store=store,
        out=run,
        model=ProjectedConfig(width=64),
        kimg=kimg,
        snapshot_kimg=kimg / 4,
        seed=config.seed,
        precision=precision,
    )
    _say(3, f"code generator, {kimg:g} thousand samples")
    train_generator("projected", gan)
    _say(4, "samples, scores, report")
    sample(SampleConfig(run=run, out=out / "samples", num=36))
    score(ScoreConfig(data=data, run=run, features="offline", num=min(200, scenes)))
    report(ReportConfig(run=(run,), data=data, store=str(store)))
    print(f"""
Look at {out / "samples" / "grid.png"} and {run / "report.html"}.
Your own pictures, a folder of 100 or more, go the same way:
  codegan inspect photos/
  codegan encode --data photos/ --out stores/photos
  codegan train --store stores/photos --out runs/photos
  codegan sample --run runs/photos --out samples""")


def _say(step: int, what: str) -> None:
    print(f"\n[{step}/4] {what}", flush=True)
