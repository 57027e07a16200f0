"""`codegan train`: the trainer of stage two, and the scores of its snapshots, of which it knows nothing itself."""

from collections.abc import Mapping

from accelerate import Accelerator

from data.advice import Done
from data.cache import cache_folder
from data.latents import LatentStore
from data.store.images import store_images
from stage1_autoencoder.training.processes import scan_share
from stage2_codegen import train as stage2
from stage2_codegen.configs.base import VariantConfig
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.snapshots import Scorer


def train(name: str, config: TrainConfig[VariantConfig]) -> Done:
    """Train variant `name`, scoring it on the way where `score_kimg` says so."""
    return stage2.train(name, config, snapshot_scores)


def snapshot_scores(
    config: TrainConfig[VariantConfig], store: LatentStore, accelerator: Accelerator, frozen: Mapping[str, str]
) -> Scorer:
    """A measure of generators against the images the store was made of, on the same seeds and images every time.

    The kernel distance comes first. Its settings are those that may change when a run is resumed. All processes call
    both functions. Raises like `codegan score`, for weights and data that cannot be used.
    """
    from pipelines.scoring.extraction import FeatureCache  # late: only this needs the feature networks, slow to load
    from pipelines.scoring.networks import load_features
    from pipelines.scoring.score import real_features, score_generator, warn_of_flattery
    from pipelines.scoring.sets import check_count, choose

    features = load_features(config.score_features, config.feature_weights, accelerator.device)
    if accelerator.is_main_process:
        warn_of_flattery(features, frozen, "--score-features")
    images = store_images(
        store,
        "put the files back, or train without --score-kimg and score afterwards",
        size=store.image_size,
        allow_hosts=config.allow_host,
        share=scan_share(accelerator),
    )
    check_count(images.name, choose(images, config.score_num, seed=0))
    real = real_features(images, config.score_num, features, accelerator, cache=FeatureCache(cache_folder()))
    return Scorer(
        lambda pipe: score_generator(pipe, features, real, config.score_num, accelerator),
        {"num": config.score_num, "features": features.name, "weights_sha256": features.weights_sha256},
    )
