"""Encoding a data set, with a word beforehand on what can be trained on its latents."""

from data.advice import Done
from stage1_autoencoder import encode as stage1
from stage1_autoencoder.configs import EncodeConfig
from stage2_codegen.configs.registry import is_trainable


def encode(config: EncodeConfig) -> Done:
    """Encode as `stage1_autoencoder.encode.encode` does; stage one itself does not know the generators of stage two."""
    return stage1.encode(config, is_trainable)
