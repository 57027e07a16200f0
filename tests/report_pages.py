"""Report pages as tests read them, small runs that were really trained, and one that was not."""

import base64
import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from data.files.atomic import write_json
from data.files.checkpoints import save_weights
from pipelines import cli
from stage1_autoencoder.configs import EncodeConfig, TrainAEConfig
from stage1_autoencoder.encode import encode
from stage1_autoencoder.networks import Autoencoder
from stage1_autoencoder.train import train as train_ae
from stage2_codegen.configs.accel import AccelConfig
from stage2_codegen.configs.train import TrainConfig
from stage2_codegen.train import train

VOID = {"meta", "img", "input", "link", "br"}
SCORES = {
    "fid": {
        "value": 12.34567,
        "autoencoder_floor": 4.5,
        "real_floor": None,
        "num_generated": 5000,
        "num_real": 4000,
        "num_half": 2000,
    },
    "num": 5000,
    "features": "inception",
    "reference": "photos.zip",
}


class Page(HTMLParser):
    """Tags, their attributes and text of a page; fails on tags that are not closed in order."""

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.bytes = (run / "report.html").read_bytes()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(self.bytes.decode())
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def classes(self, tag: str) -> list[str]:
        return [attributes.get("class", "") for attributes in self.all(tag)]

    @property
    def sections(self) -> list[str]:
        return [attributes["id"] for attributes in self.all("section")]

    @property
    def images(self) -> list[Image.Image]:
        """Every picture, decoded in full."""
        images: list[Image.Image] = []
        for attributes in self.all("img"):
            kind, content = attributes["src"].removeprefix("data:image/").split(";base64,")
            image = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
            image.load()
            assert image.format == kind.upper()
            assert image.size == (int(attributes["width"]), int(attributes["height"]))
            images.append(image)
        return images


def make_page(*runs: Path) -> Page:
    """The report of runs, with the data and the store named that the first one says it was made of."""
    found = [
        json.loads(path.read_text())
        for path in (runs[0] / "weights/config.json", runs[0] / "config.json")
        if path.is_file()
    ]
    named = {name: next((config[name] for config in found if config.get(name)), None) for name in ("data", "store")}
    words = ["--data", *named["data"]] if named["data"] else []
    words += ["--store", named["store"]] if named["store"] else []
    cli.run(["report", "--run", *map(str, runs), *words])
    return Page(runs[0])


def untrained_run(run: Path, nimg: int, **files: Any) -> Path:
    """The description of a generator and of its weights, and what else is given, as NAME.json; a string as it is."""
    described = {"kind": "generator", "variant": "accel", "kimg": nimg / 1000}
    write_json(run / "config.json", described)
    write_json(run / "weights" / "config.json", described | {"nimg": nimg, "data": ["photos.zip"], "image_size": 64})
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (run / f"{name.replace('_', '-')}.json").write_text(text)
    return run


def write_pictures(data: Path) -> None:
    """Six of noise, and a file that is none."""
    data.mkdir(parents=True)
    for index in range(6):
        pixels = np.random.default_rng(index).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(data / f"{index}.png")
    (data / "broken.png").write_bytes(b"no picture")


def train_autoencoder_run(folder: Path) -> Path:
    """A small autoencoder trained for a moment on six pictures, with two previews."""
    data, run = folder / "data", folder / "autoencoder"
    write_pictures(data)
    config = TrainAEConfig(
        data=(str(data),), out=run, size=32, width=4, code_channels=3, discriminator_width=4, max_skip=0.5
    )
    train_ae(replace(config, batch_size=2, kimg=0.04, snapshot_kimg=0.02, threads=1))
    return run


def train_run(folder: Path) -> Path:
    """A generator trained twice for a moment on six pictures, so that it was resumed once; scored, with neighbours."""
    data, autoencoder_run, store, run = (folder / name for name in ("data", "autoencoder", "store", "run"))
    write_pictures(data)
    torch.manual_seed(0)
    autoencoder = Autoencoder(factor=4, code_channels=3, width=4)
    described = {"kind": "autoencoder", "autoencoder": autoencoder.config, "nimg": 0}
    save_weights(autoencoder_run / "weights", {"autoencoder": autoencoder.state_dict()}, described)
    encode(EncodeConfig(data=(str(data),), autoencoder=autoencoder_run, out=store, size=(64,), max_skip=0.5))
    model = AccelConfig(width=4, z_dim=8, n_critic=1)
    for kimg in (0.024, 0.048):
        train("accel", TrainConfig(store=store, out=run, model=model, kimg=kimg, batch_size=2, snapshot_kimg=0.02))
    write_json(run / "scores.json", SCORES)
    Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(run / "neighbours.png")
    write_json(run / "neighbours.json", {"closer_than_5_percent_of_real": 0.25, "generated_to_real": {"50": 1.5}})
    return run
