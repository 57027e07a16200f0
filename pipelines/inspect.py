"""What is in a data set, before hours are spent on it, and what the networks of a run have learnt, after that."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.advice import Action, Advice, Done
from data.console import ProgressReport
from data.errors import UsageError
from data.files.atomic import write_json
from data.files.runs import find_config
from data.images import ImageSet, fit, image_grid, open_images, save_png, to_array, write_skipped
from data.sources.locations import data_flags
from data.spacing import evenly_spaced
from data.suitability import facts_for_encoding
from pipelines.commands import command, flags
from pipelines.configs import InspectConfig

if TYPE_CHECKING:
    from stage1_autoencoder.evaluate import Reconstruction
    from stage1_autoencoder.networks import Autoencoder

CONTACT_IMAGES, CONTACT_SIZE = 64, 128
FINE_TUNE_ABOVE = 1.5  # times the error on held-out images
# Gentler than training anew: what is already known should not be forgotten while little is learnt.
FINE_TUNING = "--code-noise 0.05 --mirror --lr 3e-4 --lr-decay-kimg 5 --kimg 20 --adversarial-weight 0"
_SHOWN = 20  # remarks and skipped files printed; the files of --out hold all
_COMPARED, _COMPARED_SIZE = 8, 256  # images in reconstructions.png, and their size where the data has it


def inspect(config: InspectConfig) -> Done:
    """Print the summary, and write it to `config.out` if given; of a run, its modules or the maps of one of them."""
    if run := _generator_run(config):
        from pipelines.maps import maps  # late: loads all variants, which a data set does not need

        return maps(run, config.module, config.out)
    if not config.size:
        raise UsageError("--size: names no size", "give one or more, such as --size 128 256")
    sizes = sorted(set(config.size))
    autoencoder = _load_autoencoder(config.autoencoder, sizes)  # first, for looking through the data may take hours
    images = _open(config.data, config.allow_host)
    summary = summarise(images, sizes)
    print(format_summary(images, summary))
    wrote = []
    if config.out:
        save_png(config.out / "contact.png", contact_sheet(images))
        write_skipped(config.out / "skipped.jsonl", images.skipped)
        wrote += [config.out / "contact.png", config.out / "skipped.jsonl"]
    source = {"data": config.data, "hosts": config.allow_host} | facts_for_encoding(images)
    following = command(Advice(Action.ENCODE, source))
    if autoencoder and config.autoencoder:
        rows, written = _reconstruct(images, autoencoder, config.autoencoder, sizes, config.out)
        summary["reconstructions"], wrote = rows, wrote + written
        worth_it, why = _advice(rows, autoencoder, config.autoencoder, summary["sides"]["shorter"]["median"])
        print(f"{why}\n")
        following = command(Advice(Action.ENCODE, source | {"autoencoder": config.autoencoder}))
        if worth_it:
            data = data_flags(config.data, config.allow_host)
            skipping = ["--max-skip", str(source["max_skip"])] if "max_skip" in source else []
            following = ["codegan", "train-ae", *data, *skipping, *_fine_tuning(autoencoder, config.autoencoder)]
    if config.out:
        write_json(config.out / "summary.json", summary)
        wrote.append(config.out / "summary.json")
    return Done(wrote, following)


def _generator_run(config: InspectConfig) -> Path | None:
    """The run folder of a generator, where DATA is one."""
    folder = Path(config.data[0]) if len(config.data) == 1 else Path()
    kind = (find_config(folder)[0] or {}).get("kind") if (folder / "weights").is_dir() else None
    if kind == "generator":
        return folder
    if kind:
        raise UsageError(f"{folder}: is a run of another kind than codegan train's", "give the run of a generator")
    if config.module is not None:
        raise UsageError("--module: only the run of a generator has modules", "give its folder in place of DATA")
    return None


def _load_autoencoder(run: Path | None, sizes: Sequence[int]) -> "Autoencoder | None":
    if run is None:
        return None
    import torch

    from stage1_autoencoder.networks import Autoencoder, check_multiple

    autoencoder = Autoencoder.load(run)
    if autoencoder.factor == 1:
        raise UsageError(f"--autoencoder {run}: changes no pixel, there is nothing to measure", "leave it out")
    check_multiple(tuple(sizes), autoencoder.factor)
    return autoencoder.to("cuda" if torch.cuda.is_available() else "cpu")


def _open(data: Sequence[str], allow_hosts: Sequence[str]) -> ImageSet:
    with ExitStack() as stack:
        reports: list[ProgressReport] = []

        def show(done: int, total: int) -> None:
            if not reports:  # the total is known only now
                reports.append(stack.enter_context(ProgressReport("inspect", total, "img")))
            reports[0].update(done)

        return open_images(data, max_skip=1, on_progress=show, allow_hosts=allow_hosts)


def summarise(images: ImageSet, sizes: Sequence[int]) -> dict[str, Any]:
    """Everything `inspect` knows, ready for JSON. `shorter_side` counts images by their shorter side in pixels."""
    height, width = images.sizes.T
    shorter = np.minimum(height, width)
    counts = np.bincount(np.searchsorted(sizes, shorter, side="right"), minlength=len(sizes) + 1)
    names = [f"below {sizes[0]}", *(f"{a} to {b - 1}" for a, b in pairwise(sizes))]
    return {
        "data": images.name,
        "fingerprint": images.fingerprint,
        "count": len(images),
        "skipped": len(images.skipped),
        "sides": {
            "height": _min_median_max(height),
            "width": _min_median_max(width),
            "shorter": _min_median_max(shorter),
        },
        "shorter_side": dict(zip([*names, f"{sizes[-1]} or more"], counts.tolist(), strict=True)),
        "labels": None if images.labels is None else dict(sorted(Counter(images.labels.tolist()).items())),
        "notes": images.notes,
    }


def _min_median_max(values: NDArray[np.int64]) -> dict[str, int]:
    return {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}


def format_summary(images: ImageSet, summary: dict[str, Any]) -> str:
    lines = [
        f"{images.name}: {summary['count']} images, {summary['skipped']} skipped",
        f"fingerprint {images.fingerprint}",
        "",
        f"{'side, pixels':<14}{'min':>8}{'median':>8}{'max':>8}",
        *(f"{side:<14}{s['min']:>8}{s['median']:>8}{s['max']:>8}" for side, s in summary["sides"].items()),
        "",
        f"{'shorter side':<14}{'images':>8}",
        *(f"{name:<14}{count:>8}" for name, count in summary["shorter_side"].items()),
        "",
    ]
    if images.labels is None:
        lines.append("labels: none")
    else:
        lines.append(f"{'label':<14}{'images':>8}  first")
        for label, count in summary["labels"].items():
            lines.append(f"{label:<14}{count:>8}  {images.keys[int(np.argmax(images.labels == label))]}")
    lines += _section("remarks", list(images.notes.items())) + _section("skipped", images.skipped)
    return "\n".join([*lines, ""])


def _section(title: str, items: Sequence[tuple[str, str]]) -> list[str]:
    """Nothing at all for no items."""
    more = [f"  and {len(items) - _SHOWN} more"] if len(items) > _SHOWN else []
    return ["", f"{title}: {len(items)}", *(f"  {key}: {text}" for key, text in items[:_SHOWN]), *more] if items else []


def contact_sheet(images: ImageSet) -> NDArray[np.uint8]:
    """Up to 64 images spread evenly over the set, as one (3, H, W)."""
    chosen = evenly_spaced(len(images), CONTACT_IMAGES)
    return image_grid([to_array(fit(images.pil(index), CONTACT_SIZE)) for index in chosen])


def _reconstruct(
    images: ImageSet, autoencoder: "Autoencoder", run: Path, sizes: Sequence[int], out: Path | None
) -> tuple[list["Reconstruction"], list[Path]]:
    """The reconstruction table, printed; with `out` also files, originals above their reconstructions."""
    from stage1_autoencoder.evaluate import comparison, format_table, reconstruction_table

    rows = reconstruction_table(autoencoder, images, sizes)
    print(f"reconstruction by {run}\n{format_table(rows)}")
    if out is None or not rows:
        return rows, []
    size = max((row["size"] for row in rows if row["size"] <= _COMPARED_SIZE), default=rows[0]["size"])
    large_enough = np.flatnonzero(images.sizes.min(axis=1) >= size)[:_COMPARED]
    originals = np.stack([to_array(fit(images.pil(int(index)), size)) for index in large_enough])
    save_png(out / "reconstructions.png", comparison(autoencoder, originals))
    return rows, [out / "reconstructions.png"]


def _advice(
    rows: Sequence["Reconstruction"], autoencoder: "Autoencoder", run: Path, median_side: int
) -> tuple[bool, str]:
    """Whether fine-tuning is worth it, and a sentence that says what was compared with what.

    The largest size that half of the images have is judged: reduced to less they are sharper than as they are encoded.
    """
    from stage1_autoencoder.evaluate import PAPER_MSE, held_out_mse

    held_out = held_out_mse(run)
    paper = PAPER_MSE if autoencoder.factor == 4 else {}  # it has no full row for others
    known = held_out or paper
    if not known:
        return False, f"no advice on fine-tuning: no errors of {run} on held-out images are known to compare with"
    judged = [row for row in rows if row["size"] in known and row["size"] <= median_side]
    if not judged:
        sizes = ", ".join(map(str, sorted(known)))
        return False, f"no advice on fine-tuning: it takes a --size of {sizes} that half of the images have"
    size, mse = judged[-1]["size"], judged[-1]["mse"]
    references = (f"that of {run} on images held out from its training", held_out), ("the paper's on faces", paper)
    times = [f"{mse / errors[size]:.1f} times {whose}" for whose, errors in references if size in errors]
    worth_it = mse > FINE_TUNE_ABOVE * known[size]
    verdict = "worth it" if worth_it else "not needed"
    return worth_it, f"at {size} px the error is {' and '.join(times)}: fine-tuning is {verdict}"


def _fine_tuning(autoencoder: "Autoencoder", run: Path) -> list[str]:
    """Flags of `train-ae`, with a run folder that is not there yet."""
    folders = (Path("runs/ae-tuned" if again == 1 else f"runs/ae-tuned-{again}") for again in count(1))
    out = next(folder for folder in folders if not folder.exists())
    return ["--init", str(run), *flags(autoencoder.config, {}), *FINE_TUNING.split(), "--out", str(out)]
