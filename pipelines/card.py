"""A folder with which a generator is given away: its weights, samples, and a model card made from its scores.

FOLDER/README.md      the card, whose header the Hugging Face hub reads
FOLDER/samples.jpg    the first samples, unselected
FOLDER/weights/       what sampling needs, without the places where its data and store were
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data.drawn import encoded
from data.errors import UsageError
from data.files.atomic import read_json, write_bytes
from data.files.checkpoints import save_weights
from data.hub import CARD, SAMPLES
from data.images import image_grid
from data.shared import name_of, own_folder
from data.sizes import height_width
from pipelines.configs import ExportConfig
from pipelines.scoring.entries import cell, entries_of
from stage2_codegen.image_generator import ImageGenerator

PLACEHOLDER = "hf://USER/NAME"  # until the folder is pushed
SHOWN = 16  # samples
_PLACES = ("store", "data", "autoencoder_run")  # of the machine that trained, which are nobody's business
_ABOUT_FLOORS = (
    "The autoencoder floor is the score of the real pictures after encoding and decoding, below which a generator of",
    "latents can hardly get. The real floor compares two halves of the real pictures. A smaller distance is better.",
)
_COLUMNS = ("value", "interval", "autoencoder_floor", "real_floor", "num_generated", "num_real")


def write_folder(folder: Path, config: ExportConfig, pipe: ImageGenerator) -> None:
    """Write or replace what the folder holds, but keep a card that is there, as its owner may have edited it.

    Raises `UsageError` for a folder that holds anything else.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--hub {folder}: is a file", "give a folder")
    others = {path.name for path in folder.glob("[!.]*")} - {CARD, SAMPLES, "weights"}
    if others:
        raise UsageError(f"--hub {folder}: holds other files ({min(others)})", "choose another folder")
    weights = {"generator": pipe.generator.state_dict(), "autoencoder": pipe.autoencoder.state_dict()}
    save_weights(folder / "weights", weights, _without_places(pipe.described))
    write_bytes(folder / SAMPLES, encoded(image_grid(pipe(range(SHOWN))), "jpeg"))
    if (folder / CARD).exists():
        print(f"{folder / CARD}: is kept as it is; remove it to have a new one")
    else:
        write_bytes(folder / CARD, _card(config, pipe).encode())


def _without_places(described: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of weights, in which files of the machine that trained have their bare names."""
    model = {name: _bare(value) for name, value in described["model"].items()}
    return {name: value for name, value in described.items() if name not in _PLACES} | {"model": model}


def _bare(value: Any) -> Any:
    return Path(value).name if isinstance(value, str) else value


def _card(config: ExportConfig, pipe: ImageGenerator) -> str:
    height, width = height_width(pipe.image_size)
    header = ["library_name: codegan", "pipeline_tag: unconditional-image-generation", "tags: [image-generation, gan]"]
    header += [f"license: {config.license}"] if config.license else []
    facts = [
        f"- Variant: `{pipe.described['variant']}`, trained on {pipe.nimg:,} samples in all",
        f"- Pictures: {width} x {height} pixels, in colour",
        f"- Latents: {' x '.join(map(str, pipe.described['code_shape']))}",
    ]
    facts += [f"- Classes: {', '.join(pipe.class_names)}"] if pipe.class_names else []
    licence = config.license or "none was given; without one, others may not use these weights"
    sections = [
        "\n".join(["---", *header, "---"]),
        f"# {name_of(config.run)}",
        "A generator of pictures, trained from scratch with codegan.",
        f"![{SHOWN} samples, unselected]({SAMPLES})",
        "\n".join(facts),
        "## Draw\n\n```\npip install codegan[hub]\n"
        f"codegan sample --run {PLACEHOLDER} --out samples --num 64\n```\n\n"
        f'```python\nfrom pipelines.sample import load_generator\n\nimages = load_generator("{PLACEHOLDER}")'
        "(seeds=[0, 1, 2])  # uint8 (3, 3, H, W)\n```",
        f"## Scores\n\n{_scores(config, pipe)}",
        f"## Licence\n\n{licence}.",
    ]
    return "\n\n".join(sections) + "\n"


def _scores(config: ExportConfig, pipe: ImageGenerator) -> str:
    """What `codegan score` has written for these weights, as a table with its floors."""
    folder = own_folder(config.run)
    file = folder / ("scores-best.json" if config.best else "scores.json") if folder else None
    scores = read_json(file) if file and file.is_file() else {}
    if not entries_of(scores) or scores.get("nimg") != pipe.nimg:
        return "These weights were not scored."
    return "\n".join(_table(scores))


def _table(scores: Mapping[str, Any]) -> Iterator[str]:
    yield f"Against {Path(scores['reference']).name}, with the features of {scores['features']}.\n"
    yield f"| score | {' | '.join(name.replace('_', ' ') for name in _COLUMNS)} |"
    yield "|---" * (len(_COLUMNS) + 1) + "|"
    for name, entry in entries_of(dict(scores)).items():
        yield f"| {name} | {' | '.join(cell(entry.get(column)) for column in _COLUMNS)} |"
    yield ""
    yield from _ABOUT_FLOORS
