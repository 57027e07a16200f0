"""A trained generator for others: an ONNX model, a program of torch, or a folder that can be given away."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from data.advice import Done
from data.errors import CodeganError, InputError, MismatchError, one_line
from data.files.atomic import publish
from data.shared import name_of
from data.sizes import size_text
from pipelines.card import write_folder
from pipelines.configs import ExportConfig
from pipelines.sample import load_generator
from stage2_codegen.image_generator import NOISE_SEED, ImageGenerator
from stage2_codegen.program import Drawing, drawing, traced

OPSET = 18  # torch's exporter writes it without a conversion, and runtimes have had it since 2023
CHECKED = (1, 3)  # sizes of the batches that a written file must draw as torch does
MOST_DIFFERENCE = 1  # of 255: other kernels add in another order, and a value may round to its neighbour

type Images = NDArray[np.uint8]


def export(config: ExportConfig) -> Done:
    """Write the files, each of which is compared with torch before it takes its name."""
    if config.onnx:
        _need_onnx()
    pipe = load_generator(config.run, config.best, config.allow_host)
    if config.hub:
        write_folder(config.hub, config, pipe)
    if config.onnx or config.program:
        _export_program(config, pipe)
    push = ["codegan", "push", str(config.hub), "--to", "hf://USER/NAME"] if config.hub else None
    return Done([path for path in (config.onnx, config.program, config.hub) if path], push)


def _export_program(config: ExportConfig, pipe: ImageGenerator) -> None:
    described = _describe(config, pipe)
    module = drawing(pipe)
    program = _traced(module, described["variant"])
    if config.onnx:
        _write(config.onnx, lambda path: _save_onnx(program, path, described), _open_onnx, pipe, module)
    if config.program:
        _write(config.program, lambda path: _save_program(program, path, described), _open_program, pipe, module)


def _need_onnx() -> None:
    """Raise `InputError` where the packages of the extra are missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        what = f"--onnx: needs the package {error.name}"
        raise InputError(what, "install the extra: `pip install codegan[export]`, or choose --program") from error


def _describe(config: ExportConfig, pipe: ImageGenerator) -> dict[str, str]:
    """What a reader of the file should know; the licence of the pictures is for their owner to add."""
    described = {
        "run": name_of(config.run),
        "variant": pipe.described["variant"],
        "nimg": str(pipe.nimg),
        "image_size": size_text(pipe.image_size),
        "z_dim": str(pipe.generator.z_dim),
        "noise_dim": str(pipe.generator.noise_dim),
        "noise_seed": str(NOISE_SEED),
        "codegan": version("codegan"),
    }
    return described | ({"classes": json.dumps(list(pipe.class_names))} if pipe.class_names else {})


def _traced(module: Drawing, variant: str) -> ExportedProgram:
    try:
        return traced(module)
    except Exception as error:  # torch has no common class for what it cannot trace
        what = f"{variant}: its generator cannot be exported ({one_line(error)})"
        raise MismatchError(what, "export a run of another variant") from error


def _save_onnx(program: ExportedProgram, path: Path, described: dict[str, str]) -> None:
    import onnx

    exported = torch.onnx.export(
        program, dynamo=True, opset_version=OPSET, input_names=["z"], output_names=["images"], verbose=False
    )
    assert exported is not None
    model = exported.model_proto
    # Where each node came from is of no use to a reader, and larger than a small model.
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        del value.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]  # it names N otherwise
    onnx.helper.set_model_props(model, described | {"opset": str(OPSET)})
    path.write_bytes(model.SerializeToString())


def _open_onnx(path: Path) -> Callable[[Images], Images]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda z: session.run(["images"], {"z": z})[0]


def _save_program(program: ExportedProgram, path: Path, described: dict[str, str]) -> None:
    with path.open("wb") as file:  # torch would want the suffix that an unfinished file does not have
        torch.export.save(program, file, extra_files={"codegan.json": json.dumps(described)})


def _open_program(path: Path) -> Callable[[Images], Images]:
    with path.open("rb") as file:
        module = torch.export.load(file).module()
    return lambda z: module(torch.from_numpy(z)).numpy()


def _write(
    path: Path,
    save: Callable[[Path], None],
    load: Callable[[Path], Callable[[Any], Images]],
    pipe: ImageGenerator,
    module: Drawing,
) -> None:
    """Save a file, compare what it draws with what torch draws, and only then give it its name."""
    with publish(path) as partial:
        try:
            save(partial)
            draw = load(partial)
        except (CodeganError, OSError):
            raise
        except Exception as error:  # neither exporter nor runtime has a common class
            what = f"{path}: this generator cannot be written ({one_line(error)})"
            raise MismatchError(what, "export a run of another variant, or try the other kind of file") from error
        difference = max(_difference(draw, pipe, module, count) for count in CHECKED)
        if difference > MOST_DIFFERENCE:
            what = f"{path}: would draw pictures that differ from torch's by {difference} of 255"
            raise MismatchError(what, "nothing was written; try the other kind of file")
    print(f"{path}: differs from torch by at most {difference} of 255")


@torch.no_grad()
def _difference(draw: Callable[[Any], Images], pipe: ImageGenerator, module: Drawing, count: int) -> int:
    z = pipe.noise(range(count))
    expected = module(z).numpy().astype(int)
    return int(np.abs(draw(z.numpy()) - expected).max())
