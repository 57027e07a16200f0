"""Stores of several sizes are those of single runs, and a damaged store is repaired to the byte or says so."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data.advice import Action, Advice
from data.errors import CodeganError, CorruptError, InputError, MismatchError, UsageError
from data.files.atomic import lock, write_bytes
from data.files.checkpoints import save_weights
from data.images import ImageSet, open_images
from data.latents import LatentStore
from data.store.reader import LatentReader
from pipelines.check import check
from pipelines.configs import CheckConfig
from stage1_autoencoder.configs import EncodeConfig
from stage1_autoencoder.encode import encode
from stage1_autoencoder.encoding import fill
from stage1_autoencoder.networks import Autoencoder

pytestmark = pytest.mark.usefixtures("single_thread")
SIZES = (16, 32, 64)


def save_run(folder: Path, autoencoder: Autoencoder) -> Path:
    described = {"kind": "autoencoder", "autoencoder": autoencoder.config}
    save_weights(folder / "weights", {"autoencoder": autoencoder.state_dict()}, described)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_autoencoder: Autoencoder) -> Path:
    return save_run(tmp_path_factory.mktemp("ae") / "run", tiny_autoencoder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine pictures in two folders, which are their labels."""
    folder, random = tmp_path_factory.mktemp("data") / "pictures", np.random.default_rng(0)
    for index in range(9):
        path = folder / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 44 + index, 3), np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory, run: Path, pictures: Path) -> Path:
    out = tmp_path_factory.mktemp("sealed") / "store"
    encode(configure(run, pictures, out, size=(16,)))
    return out


@pytest.fixture
def store(tmp_path: Path, sealed: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(sealed, tmp_path / "store"))


def configure(run: Path, data: Path | str, out: Path, **changes: Any) -> EncodeConfig:
    fields: dict[str, Any] = {"size": SIZES, "dtype": "int8", "flip": True, "batch_size": 3, "threads": 1}
    fields |= {"shard_rows": 8}
    return EncodeConfig(data=(str(data),), autoencoder=run, out=out, **{**fields, **changes})


def repair(out: Path, **changes: Any) -> None:
    encode(EncodeConfig(out=out, repair=True, threads=1, **changes))


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def rows_by_size(shape: tuple[int, int, int], dtype: str) -> int:
    return 512 // shape[1] ** 2


@pytest.mark.parametrize("kind", ["files", "scenes:9", "scenes:9@48"])
def test_several_sizes_in_one_pass_are_the_stores_of_single_runs(
    kind: str, run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.store.writer.default_shard_rows", rows_by_size)
    data = pictures if kind == "files" else kind
    fitted, decoded = ImageSet.fitted, list[int]()

    def count(self: ImageSet, index: int, sizes: list[int]) -> list[Any]:
        decoded.append(index)
        return fitted(self, index, sizes)

    with monkeypatch.context() as patch:
        patch.setattr(ImageSet, "fitted", count)
        encode(configure(run, data, tmp_path / "all", shard_rows=None))
    assert decoded == list(range(9))
    assert [LatentStore.open(tmp_path / "all" / str(size)).shard_rows for size in SIZES] == [32, 8, 2]
    for size in SIZES:
        encode(configure(run, data, tmp_path / str(size), size=(size,), shard_rows=None))
        assert contents(tmp_path / "all" / str(size)) == contents(tmp_path / str(size))
    images = open_images(data, 64)
    np.testing.assert_array_equal(images.fitted(3, [16, 64])[1], images.image(3))


def test_a_size_is_added_to_those_that_are_there(
    run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encode(configure(run, pictures, tmp_path / "sizes" / "32", size=(32,)))
    before = contents(tmp_path / "sizes")
    encode(configure(run, pictures, tmp_path / "sizes"))
    assert f"{tmp_path / 'sizes' / '32'}: is complete already" in capsys.readouterr().out
    after = contents(tmp_path / "sizes")
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in after} == {"16", "32", "64"}


def test_stores_of_several_sizes_go_neither_into_a_store_nor_into_a_file(
    run: Path, pictures: Path, store: Path, tmp_path: Path
) -> None:
    before = contents(store)
    (tmp_path / "file").touch()
    for out in (store, tmp_path / "file"):
        with pytest.raises(UsageError, match="several stores"):
            encode(configure(run, pictures, out))
    assert contents(store) == before


def test_labels_and_mirrored_copies_come_with_their_rows(sealed: Path, pictures: Path) -> None:
    store, images = LatentStore.open(sealed), open_images(pictures)
    reader = LatentReader(store, seed=0)
    rows = reader.rows(0, 18)
    assert images.labels is not None
    assert set(images.labels.tolist()) == {0, 1}
    assert store.labels[rows].tolist() == [int(images.labels[row // 2]) for row in rows]
    assert [store.keys[row] for row in rows] == [images.keys[row // 2] for row in rows]


DAMAGES: dict[str, Callable[[Path], None]] = {
    "flip": lambda path: flip(path),
    "truncate": lambda path: write_bytes(path, path.read_bytes()[:-3]),
    "empty": lambda path: write_bytes(path, b""),
    "delete": lambda path: path.unlink(),
}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def all_damaged(store: Path, names: list[str]) -> list[str]:
    with pytest.raises(CorruptError) as found:
        check(CheckConfig(path=store))
    assert found.value.advice == Advice(Action.REPAIR_STORE, {"store": store})
    return [name for name in names if name in found.value.what]


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_file_is_repaired_to_the_byte(damage: str, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(store)
    assert len(before) == 3 + 3 + 4 + 2 + 2  # shards, their scales, arrays' metadata, vectors, seals
    for name in before:
        DAMAGES[damage](store / name)
        assert all_damaged(store, [name]) == [name]
        repair(store)
        assert contents(store) == before, name
    assert "with other bytes than before" not in capsys.readouterr().out


def test_all_damage_is_listed_and_repaired_at_once(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(store)
    names = [name for name in before if name not in ("zarr.json", "latents/c/1/0/0/0", "scales/c/1/0")]
    for name in names:
        flip(store / name)
    with pytest.raises(CorruptError, match=f"{len(names)} files of {store} are damaged"):
        check(CheckConfig(path=store))
    listed = capsys.readouterr().out
    assert all(f"{store / name}: " in listed for name in names)
    stamp = (store / "latents/c/1/0/0/0").stat().st_mtime_ns
    repair(store)
    assert contents(store) == before
    assert (store / "latents/c/1/0/0/0").stat().st_mtime_ns == stamp  # what is whole is left alone
    capsys.readouterr()
    repair(store)
    assert f"{store}: is whole" in capsys.readouterr().out


@pytest.mark.parametrize("part", ["latents/c/{}/0/0/0", "scales/c/{}/0"])
def test_shards_that_changed_places_are_repaired(part: str, store: Path) -> None:
    before = contents(store)
    one, other = part.format(0), part.format(1)
    (store / one).write_bytes(before[other])
    (store / other).write_bytes(before[one])
    assert all_damaged(store, [one]) == [one]
    repair(store)
    assert contents(store) == before


def test_a_repair_that_was_cut_short_goes_on(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(store)
    for shard in range(3):
        (store / f"latents/c/{shard}/0/0/0").unlink()
    forward, calls = Autoencoder.encode, list[int]()

    def encode_once(self: Autoencoder, images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        if len(calls) == 5:  # the first two shards take three each
            raise KeyboardInterrupt
        return forward(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(Autoencoder, "encode", encode_once)
        with pytest.raises(KeyboardInterrupt):
            repair(store)
        stamp = (store / "latents/c/0/0/0/0").stat().st_mtime_ns
        repair(store)
    assert (store / "latents/c/0/0/0/0").stat().st_mtime_ns == stamp
    assert contents(store) == before


def test_damage_after_an_encode_that_was_killed_before_its_journal_was_gone_is_repaired(
    run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr("data.store.writer.remove_journal", lambda path: None)
        encode(EncodeConfig(data=(str(pictures),), autoencoder=run, out=out, size=(16,), shard_rows=2))
    assert (out / "journal").is_dir()
    shard = out / "latents" / "c" / "1" / "0" / "0" / "0"
    whole = shard.read_bytes()
    shard.unlink()
    encode(EncodeConfig(out=out, repair=True))
    assert shard.read_bytes() == whole
    check(CheckConfig(path=out))
    assert not (out / "journal").exists()


def test_shards_that_come_out_different_are_sealed_anew_and_said_so(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, checksum = contents(store), LatentStore.open(store).seal["crc32c"]
    flip(store / "latents/c/1/0/0/0")
    forward = Autoencoder.encode
    monkeypatch.setattr(Autoencoder, "encode", lambda self, images: forward(self, images) * 1.01)
    repair(store)
    assert "with other bytes than before" in capsys.readouterr().out
    check(CheckConfig(path=store))
    opened = LatentStore.open(store)
    assert opened.seal["crc32c"] != checksum
    values = opened.read(range(len(opened)))
    np.testing.assert_allclose(opened.mean, values.mean((0, 2, 3), np.float64), rtol=1e-5, atol=1e-7)
    changed = {name for name, content in contents(store).items() if content != before[name]}
    assert changed <= {"latents/c/1/0/0/0", "scales/c/1/0", "zarr.json", "latents/seal.json"}


def test_stores_of_several_sizes_are_checked_and_repaired_together(run: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "sizes"
    encode(configure(run, pictures, out, size=(16, 32)))
    before = contents(out)
    flip(out / "16" / "latents/c/2/0/0/0")
    (out / "32" / "keys/c/0").unlink()
    with pytest.raises(CorruptError, match="16/latents/c/2") as found:
        check(CheckConfig(path=out))
    assert found.value.advice == Advice(Action.REPAIR_STORE, {"store": out / "16"})
    repair(out)
    check(CheckConfig(path=out))
    assert contents(out) == before


def test_a_store_that_cannot_be_repaired_hides_and_hinders_no_other(
    run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sizes"
    encode(configure(run, pictures, out, size=(16, 32, 48, 64)))
    before = contents(out)
    with monkeypatch.context() as patch:
        patch.setattr("stage1_autoencoder.encode.fill", interrupt)
        with pytest.raises(KeyboardInterrupt):
            encode(configure(run, pictures, out / "00", size=(16,)))
    for name in ("zarr.json", "latents/seal.json"):
        flip(out / "32" / name)
    flip(out / "48" / "latents/c/1/0/0/0")
    torch.manual_seed(1)
    other = save_run(tmp_path / "other", Autoencoder(factor=4, code_channels=3, width=4))
    shutil.rmtree(out / "64")
    encode(configure(other, pictures, out / "64", size=(16,)))
    flip(out / "64" / "latents/c/0/0/0/0")
    capsys.readouterr()

    with pytest.raises(CorruptError, match=f"{out / '00'}: is not sealed") as found:
        check(CheckConfig(path=out))
    told = capsys.readouterr().out
    assert f"{out / '16'}: store is whole" in told
    assert f"error: {out / '32'}: both copies of its seal are damaged" in told
    assert all(f"{out / name}: checksum mismatch" in told for name in ("48/latents/c/1/0/0/0", "64/latents/c/0/0/0/0"))
    assert found.value.fix == "run the same encode again"

    with pytest.raises(CorruptError, match=f"{out / '00'}: is not sealed"):
        repair(out, autoencoder=run)
    told = capsys.readouterr().out
    assert f"{out / '48'}: repaired, every byte is as it was" in told
    assert f"error: {out / '64'}: was encoded by another autoencoder" in told
    after = contents(out)
    assert all(after[name] == before[name] for name in before if name.startswith(("16/", "48/")))


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_the_fingerprint_and_not_the_place_tells_the_data_that_an_encode_goes_on_with(
    run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pictures, "pics")
    with monkeypatch.context() as patch:
        patch.setattr("stage1_autoencoder.encode.fill", interrupt)
        for data in ("pics", "pics/", str(tmp_path / "pics")):
            with pytest.raises(KeyboardInterrupt):
                encode(configure(run, data, tmp_path / "store"))
    shutil.move("pics", "moved")
    encode(configure(run, "moved", tmp_path / "store"))
    assert LatentStore.open(tmp_path / "store" / "16").seal["data"] == ["moved"]
    encode(configure(run, "moved", tmp_path / "straight"))
    assert contents(tmp_path / "store") == contents(tmp_path / "straight")
    capsys.readouterr()
    encode(configure(run, "moved/", tmp_path / "store"))
    assert capsys.readouterr().out.count("is complete already") == len(SIZES)
    (tmp_path / "moved" / "a" / "0.png").unlink()
    with pytest.raises(UsageError, match="not an unfinished store"):
        encode(configure(run, "moved", tmp_path / "store"))


def test_a_repair_that_does_not_find_the_data_says_how_to_name_its_place(
    run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pictures, "pics")
    out = tmp_path / "store"
    encode(configure(run, "pics", out, size=(16,)))
    before = contents(out)
    flip(out / "latents/c/1/0/0/0")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="pics: no such file or folder") as refused:
        repair(out)
    assert refused.value.fix.startswith("give the location of the data with --data")
    with pytest.raises(InputError) as refused:
        repair(out, data=("nowhere",))
    assert "--data" not in refused.value.fix
    repair(out, data=("../pics",))
    assert contents(out) == before


def test_a_picture_that_changes_before_it_is_encoded_is_not_sealed_as_what_it_was(
    run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = Path(shutil.copytree(pictures, tmp_path / "pics")), tmp_path / "store"
    whole = (data / "a" / "8.png").read_bytes()

    def change_and_fill(*arguments: Any) -> None:
        (data / "a" / "8.png").write_bytes((data / "a" / "6.png").read_bytes())
        fill(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("stage1_autoencoder.encode.fill", change_and_fill)
        with pytest.raises(InputError, match=r"a/8\.png: has changed") as refused:
            encode(configure(run, data, out, size=(16,), shard_rows=4))
    assert refused.value.fix.startswith("put it back as it was and run the same command again, or start again")
    with pytest.raises(CorruptError, match="not sealed"):
        LatentStore.open(out)
    with pytest.raises(MismatchError, match="other images"):
        encode(configure(run, data, out, size=(16,), shard_rows=4))
    (data / "a" / "8.png").write_bytes(whole)
    encode(configure(run, data, out, size=(16,), shard_rows=4))
    assert LatentStore.open(out).seal["data_fingerprint"] == open_images(pictures).fingerprint


def test_only_the_same_images_and_autoencoder_repair_a_store(
    run: Path, pictures: Path, store: Path, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    other_run = save_run(tmp_path / "other", Autoencoder(factor=4, code_channels=3, width=4))
    other_data = Path(shutil.copytree(pictures, tmp_path / "pictures"))
    (other_data / "a" / "0.png").write_bytes((other_data / "b" / "1.png").read_bytes())
    flip(store / "latents/c/1/0/0/0")
    before = contents(store)
    for changes in ({"data": (str(other_data),)}, {"autoencoder": other_run}):
        with pytest.raises(MismatchError):
            repair(store, **changes)
        assert contents(store) == before
    moved_data, moved_run = shutil.copytree(pictures, tmp_path / "moved"), shutil.copytree(run, tmp_path / "moved-run")
    repair(store, data=(str(moved_data),), autoencoder=Path(moved_run))
    check(CheckConfig(path=store))


def test_without_a_seal_or_with_one_being_written_there_is_no_repair(store: Path) -> None:
    for name in ("zarr.json", "latents/seal.json"):
        flip(store / name)
    with pytest.raises(CorruptError, match="both copies") as refused:
        repair(store)
    assert refused.value.advice is None
    (store / "zarr.json").unlink()
    (store / "latents/seal.json").unlink()
    with pytest.raises(InputError):
        repair(store)


def test_a_store_in_use_is_neither_encoded_nor_repaired(
    run: Path, pictures: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stage1_autoencoder.encode.open_images", interrupt)  # which may take hours, it is told before
    with lock(store), pytest.raises(CodeganError, match="being written by process") as refused:
        repair(store)
    assert refused.value.exit_code == 9
    with lock(tmp_path / "sizes" / "32"), pytest.raises(CodeganError) as refused:
        encode(configure(run, pictures, tmp_path / "sizes"))
    assert refused.value.exit_code == 9
