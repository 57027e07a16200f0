"""What the configurations of both trainings say alike."""

from typing import Literal

Precision = Literal["fp32", "bf16"]


Tracker = Literal["none", "tensorboard", "wandb", "trackio"]
