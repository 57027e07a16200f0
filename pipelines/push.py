"""Putting an exported generator on the Hugging Face hub."""

from data.advice import Done
from data.errors import UsageError
from data.files.atomic import write_bytes
from data.files.checkpoints import load_weights
from data.hub import CARD, HubAddress, upload
from pipelines.card import PLACEHOLDER
from pipelines.configs import PushConfig


def push(config: PushConfig) -> Done:
    """Check every byte of the weights, name the repository in the card, and upload both."""
    address = HubAddress.parse(config.to)
    card = config.folder / CARD
    if not card.is_file():
        raise UsageError(
            f"{config.folder}: holds no {CARD}", "write the folder with codegan export --run RUN --hub FOLDER"
        )
    load_weights(config.folder / "weights")
    text = card.read_text(encoding="utf-8")
    if PLACEHOLDER in text:
        write_bytes(card, text.replace(PLACEHOLDER, str(address)).encode())
    upload(config.folder, address, config.public)
    return Done([address], ["codegan", "sample", "--run", str(address), "--out", "samples"])
