"""The examples of docs/library.md run as they stand, on fewer and smaller pictures."""

import re
from pathlib import Path

import pytest

from data.images import open_images, save_png

PAGE = Path(__file__).parents[1] / "docs" / "library.md"
SMALLER = {
    "size=(256,)": "size=(64,)",
    "size=256": "size=64",
    "kimg=200": "kimg=0.008",
    "ProjectedConfig()": "ProjectedConfig(width=4, z_dim=8, view_side=64)",
    "(32)": "(4)",
    "frames=60": "frames=3",
    "candidates=1000": "candidates=4",
    "steps=300": "steps=2",
    "num=2048": "num=4",
    'out=Path("runs/photos"), ': 'out=Path("runs/photos"), batch_size=4, ',
}


@pytest.mark.usefixtures("single_thread")
def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scenes = open_images("scenes:8@64")
    for number in range(8):
        save_png(tmp_path / "photos" / f"{number}.png", scenes.image(number))
    script = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    for usual, small in SMALLER.items():
        assert usual in script, f"{usual}: the page does not say it any more"
        script = script.replace(usual, small)
    names: dict[str, object] = {}
    exec(compile(script, str(PAGE), "exec"), names)
    assert names["codes"].shape == (8, 16, 32, 32)  # type: ignore[attr-defined]
    assert len(names["frames"]) == 3  # type: ignore[arg-type]
