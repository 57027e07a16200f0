"""What a person meets at the prompt: verbs, two-line errors, exit codes."""

import errno
import io
import os
import re
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import get_args, get_type_hints

import pytest
import torch
from PIL import Image

from data.advice import Done
from data.errors import UsageError
from data.latents import LatentStore
from data.store.writer import LatentWriter
from pipelines import cli
from pipelines.cli import LEAST_COLUMNS, main, run
from pipelines.verbs import VERBS
from stage1_autoencoder.training.processes import make_accelerator
from stage1_autoencoder.training.stopping import STOP_SIGNALS
from stage2_codegen.configs.registry import CONFIGS
from tests.launched import set_group

ASCII = {"PYTHONIOENCODING": "ascii"}  # what tyro then draws frames with
NARROW = {"PYTHONIOENCODING": "utf-8", "COLUMNS": "40"}


def _exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["codegan", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_no_help_loads_torch() -> None:
    helps = [["--help"], *([verb, "--help"] for verb in VERBS), *(["train", name, "--help"] for name in CONFIGS)]
    script = f"""import sys
from pipelines.cli import run
for words in {helps!r}:
    try:
        run(words)
    except SystemExit as stop:
        assert not stop.code
    assert "torch" not in sys.modules, words
"""
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert all(verb in shown for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _exit_code(monkeypatch, verb, "--help") == 0
    assert f"Example: codegan {verb}" in " ".join(capsys.readouterr().out.replace("│", " ").split())


HELPS = [[verb] for verb in VERBS if not VERBS[verb].of_variant] + [["train", variant] for variant in CONFIGS]


@pytest.mark.parametrize("columns", [5, 60, 120])
def test_no_line_of_a_help_ends_early(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line of a text is as full as the first word of the next one allows. Five columns are too few to obey."""
    monkeypatch.setenv("COLUMNS", str(columns))
    for words in HELPS:
        with pytest.raises(SystemExit):
            run([*words, "--help"])
        rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]  # without a frame here
        width = max(map(len, rows))
        assert width <= max(columns, LEAST_COLUMNS)
        for row, following in pairwise(rows):
            indent = len(following) - len(following.lstrip())
            if indent > 4 and len(row) - len(row.lstrip()) == indent:  # both are lines of one field's text
                assert len(row.rstrip()) + 1 + len(following.split()[0]) > width, f"{words}: {row}"


def test_train_lists_its_variants_and_their_fields(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _exit_code(monkeypatch, "train", "--help") == 0
    shown = capsys.readouterr().out
    assert "accel" in shown
    assert "Example: codegan train" in shown
    assert _exit_code(monkeypatch, "train", "accel", "--help") == 0
    assert "--model.gp-weight" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["trian"], 2, "did you mean train"),
        (["train", "acel"], 2, "did you mean accel"),
        (["train", "accel", "--store", "x", "--out", "y", "--kimgs", "3"], 2, "--help"),
        (["train-ae", "--out", "x"], 2, "--help"),
        (["train", "accel", "--store", "missing", "--out", "y"], 3, "codegan encode"),
        (["train-ae", "--data", "missing", "--out", "x"], 3, ""),
        (["train-ae", "--data", "scenes:9", "--out", "x", "--processes"], 2, "number of GPUs"),
        (["train", "accel", "--processes=two", "--store", "x", "--out", "y"], 2, "number of GPUs"),
        (["encode", "--data", "scenes:4", "--out", "s", "--processes", "0"], 2, "number of GPUs"),
        (["walk", "--run", "missing", "--out", "s", "--processes", "2"], 2, "leave out"),
        (["--processes", "2", "walk", "--run", "missing", "--out", "s"], 2, "leave out"),
        (["train", "--processes", "1", "acel"], 2, "did you mean accel"),
        (["train-ae", "--data", "scenes:x", "--out", "x"], 2, ""),
        (["train-ae", "--data", "scenes:9", "--out", "x", "--factor", "4", "--size", "130"], 2, "128"),
        (["train-ae", "--data", "scenes:9", "--out", "x", "--factor", "3"], 2, "2, 4, 8, 16"),
        (["encode", "--data", "scenes:4", "--autoencoder", "missing", "--out", "s"], 3, ""),
        (["encode", "--data", "scenes:4", "--autoencoder", "a", "--out", "s", "--dtype", "float8"], 2, "--help"),
        (["sample", "--run", "missing", "--out", "s"], 3, ""),
        (["check", "missing"], 3, ""),
        (["report", "--run", "missing"], 3, ""),
        (["inspect", "missing"], 3, ""),
        (["inspect", "pipe:rm"], 6, ""),
        (["inspect", "~nosuchuser/x"], 3, "in full"),
        (["inspect", "scenes:4", "--size", "30", "--autoencoder", "default", "--out", "i"], 2, "such as 32"),
        (["train-ae", "--data", "scenes:9", "--out", "x", "--threads", "0"], 2, "1 or more"),
        (["train-ae", "--data", "scenes:9", "--out", "x", "--lr=-1"], 2, "more than 0"),
        (["train-ae", "--data", "scenes:9", "--out", "x", "--discriminator-width", "0"], 2, "1 or more"),
        (["train-ae", "--data", "scenes:9", "--out", "x", "--adversarial-weight=-1"], 2, "give 0"),
        (["train-ae", "--data", "scenes:9", "--out", "/proc/x"], 3, "permissions"),
        (["train-ae", "--data", "scenes:9", "--out", "/dev/null/x"], 3, "permissions"),
    ],
)
def test_bad_input_gives_two_lines_and_its_code(
    arguments: list[str],
    code: int,
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _exit_code(monkeypatch, *arguments) == code
    first, second, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith("error: ")
    assert second.startswith("  fix: ")
    assert hint in second
    assert not rest
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said", "settings"),
    [
        (["inspect", "scenes:4", "--max-skips", "1"], "Unrecognized options: --max-skips, 1", ASCII),
        (["inspect", "scenes:4", "--max-skips", "1"], "Unrecognized options: --max-skips, 1", NARROW),
        (["encode", "--data", "a", "--autoencoder", "a", "--out", "s", "--dtype", "int4"], "invalid choice", ASCII),
        (["report", "--out", "page"], "--run PATH", ASCII),
    ],
)
def test_a_wrong_command_line_is_two_plain_lines_in_a_pipe(
    arguments: list[str], said: str, settings: dict[str, str], tmp_path: Path
) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | settings
    command = [sys.executable, "-m", "pipelines", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8")
    program = f"codegan {arguments[0]}"
    what, fix = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert what.startswith(f"error: {program}: ")
    assert said in what
    assert fix == f"  fix: {program} --help"
    assert "--help" not in what
    assert not re.search(r"-{3,}|[─│╭╮╰╯\x1b]|  ", what)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_gives_what_the_command_line_prints_at_the_end(verb: str) -> None:
    given = get_type_hints(VERBS[verb].load())["return"]
    assert {*(get_args(given) or [given])} <= {Done, NoneType}


@pytest.mark.parametrize("verb", ["train-ae", "encode", "train accel"])
def test_verbs_that_several_processes_share_say_so(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _exit_code(monkeypatch, *verb.split(), "--help") == 0
    assert "--processes N" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:5"),
        torch.distributed.DistBackendError("NCCL error: remote process exited or there was a network error"),
        torch.distributed.DistNetworkError("failed to recv, got 0 bytes"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_rank_that_lost_the_others_says_so_in_two_lines(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lose(arguments: list[str]) -> None:
        raise error

    monkeypatch.setattr(cli, "run", lose)
    set_group(monkeypatch, rank=3, size=4)
    monkeypatch.setattr(os, "_exit", sys.exit)
    assert _exit_code(monkeypatch, "train") == 10
    what, fix = capsys.readouterr().err.splitlines()
    assert what.startswith("error: rank 3 lost the other processes")
    assert fix.startswith("  fix: ")


def test_a_rank_that_is_done_leaves_its_group_before_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the group's threads abort the process at its exit, one time in ten."""

    def join(arguments: list[str]) -> None:
        meeting = f"file://{tmp_path}/meeting"
        torch.distributed.init_process_group("gloo", init_method=meeting, rank=0, world_size=1)

    monkeypatch.setattr(cli, "run", join)
    set_group(monkeypatch, rank=0, size=2)
    assert _exit_code(monkeypatch, "train") == 0
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EIO], ids=errno.errorcode.get)
def test_a_place_that_cannot_be_used_is_named_in_two_lines(
    code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: list[str]) -> None:
        raise OSError(code, os.strerror(code), "runs/a")

    monkeypatch.setattr(cli, "run", fail)
    assert _exit_code(monkeypatch, "train") == 3
    what, fix = capsys.readouterr().err.splitlines()
    assert what == f"error: runs/a: {os.strerror(code)}"
    assert fix.startswith("  fix: ")


@pytest.mark.parametrize(("verb", "code"), [("encode", 75), ("train", 75), ("inspect", 0), ("report", 0)])
def test_work_that_nobody_reads_on_is_not_called_done(verb: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: list[str]) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(cli, "run", fail)
    assert _exit_code(monkeypatch, verb) == code


def test_work_whose_last_lines_nobody_reads_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("pipelines.train.train", lambda *_: Done(["run"]))
    monkeypatch.setattr(cli, "finish", fail)
    assert _exit_code(monkeypatch, "train", "--store", "s", "--out", "r") == 0


def test_too_little_memory_for_a_tensor_exits_7(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "run", lambda arguments: torch.empty(2**60))
    assert _exit_code(monkeypatch, "train") == 7
    assert capsys.readouterr().err.endswith("  fix: lower --batch-size\n")


def test_names_that_are_no_text_can_be_printed(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    Image.new("RGB", (20, 20)).save(folder / "a.png")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-m", "pipelines", "inspect", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "caf\\udce9" in done.stdout


def test_a_place_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", fail)
    assert _exit_code(monkeypatch, "train-ae", "--data", "scenes:9", "--out", str(tmp_path / "run")) == 3
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'run'}: No locks available\n  fix: ")


@pytest.mark.parametrize("number", [number for number in STOP_SIGNALS if number != signal.SIGINT])
@pytest.mark.parametrize("arguments", [["demo"], ["train-ae"], ["encode"], ["train", "accel"]], ids="-".join)
def test_a_verb_that_resumes_exits_75_when_it_is_stopped_wherever_it_is(
    arguments: list[str],
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def preempt(arguments: list[str]) -> None:
        try:
            os.kill(os.getpid(), number)
        except Exception:  # as of a picture that cannot be read
            pytest.fail("went on")

    before = signal.signal(number, signal.SIG_DFL)  # which nohup may have set otherwise
    monkeypatch.setattr(cli, "run", preempt)
    assert _exit_code(monkeypatch, *arguments) == 75
    what, fix = capsys.readouterr().err.splitlines()
    assert (what, fix) == (
        "error: stopped from outside; what was saved is kept",
        "  fix: run the same command again",
    )
    assert signal.signal(number, before) is signal.SIG_DFL


def test_other_verbs_leave_sigterm_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []
    monkeypatch.setattr(cli, "run", lambda arguments: seen.append(signal.getsignal(signal.SIGTERM)))
    assert _exit_code(monkeypatch, "sample") == _exit_code(monkeypatch) == 0
    assert seen == [before, before]


def test_an_encode_stopped_by_sigterm_goes_on_with_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = LatentWriter.write_shard

    def write_and_preempt(self: LatentWriter, shard: int, latents: object) -> None:
        write(self, shard, latents)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGTERM)

    command = ["encode", "--data", "scenes:12@16", "--autoencoder", "pixels", "--size", "16", "--shard-rows", "4"]
    command += ["--out", str(tmp_path / "store")]
    with monkeypatch.context() as patch:
        patch.setattr(LatentWriter, "write_shard", write_and_preempt)
        assert [_exit_code(monkeypatch, *command) for _ in range(2)] == [75, 75]
    assert _exit_code(monkeypatch, *command) == 0
    store = LatentStore.open(tmp_path / "store")
    store.verify()
    assert len(store) == 12


def test_any_other_failure_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(arguments: list[str]) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(cli, "run", break_down)
    monkeypatch.setattr(sys, "argv", ["codegan", "train"])
    with pytest.raises(RuntimeError, match="unforeseen"):
        main()


def test_traceback_is_shown_when_asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit_code(monkeypatch, "trian", "--traceback") == 2
    assert "Traceback" in capsys.readouterr().err


def test_module_and_console_script_are_the_same() -> None:
    shown = subprocess.run([sys.executable, "-m", "pipelines", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip().count(".") == 2


def test_run_raises_for_the_caller() -> None:
    with pytest.raises(UsageError):
        run(["nonsense"])


def test_flags_without_a_value_are_switches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--flip` parses on its own: what fails is the autoencoder that is not there."""
    monkeypatch.chdir(tmp_path)
    assert _exit_code(monkeypatch, "encode", "--data", "scenes:4", "--autoencoder", "a", "--flip", "--out", "s") == 3
    assert "no weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "variant"),
    [
        (["--store", "s", "--out", "r"], "projected"),
        (["--store", "s", "--out", "sle"], "projected"),  # a folder that is called like a variant
        (["--store", "s", "--out", "r", "--model.no-mixing"], "projected"),
        (["sle", "--store", "s", "--out", "r"], "sle"),
        (["--store", "s", "--out", "r", "sle"], "sle"),
        (["--store", "s", "--out", "r", "--compile", "sle"], "sle"),
        (["--store", "s", "--out", "r", "--no-mirror", "sle"], "sle"),
        (["--store", "s", "--out=r", "sle"], "sle"),
        (["gca", "--store", "s", "--out", "r", "--model.host", "sagan"], "gca"),
    ],
)
def test_train_takes_the_recommended_variant_where_none_is_named(
    words: list[str], variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    monkeypatch.setattr("pipelines.train.train", lambda name, config: trained.append(name))
    cli.run(["train", *words])
    assert trained == [variant]


@pytest.mark.parametrize(("given", "used"), [({}, "3"), ({"OMP_NUM_THREADS": "2"}, "2")])
def test_the_number_of_threads_is_set_before_torch_is_loaded(
    given: dict[str, str], used: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # so that it is as before after the test
    monkeypatch.delenv("OMP_NUM_THREADS")
    for name, value in {"CODEGAN_THREADS": "3", **given}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cli, "run", lambda arguments: print(os.environ["OMP_NUM_THREADS"]))
    assert _exit_code(monkeypatch, "models") == 0
    assert capsys.readouterr().out.split() == [used]
    monkeypatch.setenv("CODEGAN_THREADS", "two")
    assert _exit_code(monkeypatch, "models") == 2
    assert capsys.readouterr().err.startswith("error: CODEGAN_THREADS=two: is not a number of threads\n  fix: ")


@pytest.mark.parametrize(
    ("left", "named"),
    [
        ({"RANK": "1"}, "RANK"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK"),
        ({"RANK": "", "WORLD_SIZE": "", "LOCAL_RANK": "", "LOCAL_WORLD_SIZE": ""}, "RANK, WORLD_SIZE, LOCAL_RANK"),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK, WORLD_SIZE, LOCAL_RANK"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "PMI_SIZE": "1"}, "OMPI_COMM_WORLD_SIZE"),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}, "SLURM_STEP_NUM_TASKS"),
    ],
)
def test_what_a_launcher_left_in_the_shell_is_ignored_with_a_word(
    left: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[int, int]] = []

    def look(arguments: list[str]) -> None:
        accelerator = make_accelerator()
        seen.append((accelerator.process_index, accelerator.num_processes))

    for name, value in left.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cli, "run", look)
    assert _exit_code(monkeypatch, "sample") == 0
    assert seen == [(0, 1)]
    warning, advice = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"warning: {named}")
    assert "--processes N" in advice


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(errno.EIO, "Input/output error")], ids=repr)
def test_a_message_that_nobody_can_read_leaves_the_code_as_it_is(
    error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(io.TextIOBase):
        def write(self, text: str) -> int:
            raise error

    monkeypatch.setattr(sys, "stderr", Closed())
    assert _exit_code(monkeypatch, "trian") == 2

    def interrupt(arguments: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run", interrupt)
    assert _exit_code(monkeypatch, "train") == 130


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("{codegan} --help >&-", 0),
        ("{codegan} --help <&- >&- 2>&-", 0),
        ("{codegan} trian 2>&-", 2),
        ("{codegan} --help >/dev/full", 7),
        ("set -o pipefail; {codegan} train --help | head -1", 0),
    ],
)
def test_closed_streams_change_no_exit_code(command: str, code: int) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    script = command.format(codegan=f"{sys.executable} -m pipelines")
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
