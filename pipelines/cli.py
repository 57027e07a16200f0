"""The command line: reads the flags, runs the verb, and turns what went wrong into two lines and an exit code.

The module that does a verb's work is imported after its flags are read, so that help and typing errors do not wait for
torch.
"""

import contextlib
import errno
import inspect
import io
import logging
import os
import re
import shutil
import signal
import sys
import traceback
import typing
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NoReturn

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructTypeInfo
from tyro.constructors._struct_spec_dataclass import dataclass_rule

from data.advice import Advice, Done
from data.console import finish, open_streams, tell
from data.errors import CodeganError, InputError, Preempted, SpaceError, Terminated, UsageError, WorkerError
from pipelines.commands import command, followed_by
from pipelines.verbs import VERBS, Verb
from pipelines.worker import messages
from stage1_autoencoder.training.environment import forget_leftover_ranks, share_cores, thread_settings
from stage1_autoencoder.training.stopping import heeded_signals
from stage2_codegen.configs.registry import CONFIGS, RECOMMENDED

HELP = """usage: codegan VERB ...

Train an image generator from scratch on your own pictures.

{verbs}

`codegan VERB --help` shows a verb's flags and an example; `codegan train --help` lists the variants.
{shared}: --processes N shares the work among N processes, one for each GPU.
--traceback after any verb shows where an error came from. Exit codes: 0 done, 2 usage, 3 input, 4 mismatch, 5 corrupt,
6 unsafe, 7 no space, 8 diverged, 9 locked, 10 worker failed, 75 preempted (resumable), 130 interrupted.

Start with: codegan demo --out runs/demo"""

LEAST_COLUMNS = 40  # that help is written in
PROCESSES = "--processes N shares the work among N processes of this machine; N should be the number of GPUs."


def main() -> NoReturn:
    """Run the verb in sys.argv, in this process or in several, and exit with its documented code."""
    open_streams()
    complaints = messages()
    arguments = sys.argv[1:]
    show_traceback = "--traceback" in arguments
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    forget_leftover_ranks()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text

    def fail(error: CodeganError) -> NoReturn:
        if show_traceback:
            traceback.print_exc(file=complaints)
        say(f"error: {error.what}\n  fix: {followed_by(error.fix, error.advice)}")
        _exit(error.exit_code)

    def say(text: str) -> None:
        with contextlib.suppress(OSError):  # nobody listens, but the code still tells
            print(text, file=complaints, flush=True)

    try:
        processes, arguments = _split_processes(arguments)
        with _terminable(arguments):
            if processes > 1:
                from pipelines.launch import launch  # late, as difflib below: slow to load, and seldom needed

                share_cores()
                launch([*_this_program(), *arguments], processes)
            else:
                os.environ |= thread_settings() | os.environ
                run([argument for argument in arguments if argument != "--traceback"])
        with contextlib.suppress(BrokenPipeError):  # all is done, although nobody reads that
            sys.stdout.flush()
    except CodeganError as error:
        fail(error)
    except MemoryError:
        fail(SpaceError("out of memory", "lower --batch-size"))
    except Terminated:
        fail(Preempted("stopped from outside; what was saved is kept", "run the same command again"))
    except KeyboardInterrupt:
        say("interrupted; what was saved is kept, and the same command goes on from there")
        _exit(130)
    except Exception as error:
        if _is_unread(error):
            _exit(Preempted.exit_code if _resumes(arguments) else 0)
        if _is_out_of_memory(error):
            fail(SpaceError("out of memory for tensors", "lower --batch-size"))
        if _is_lost_connection(error):
            what = f"rank {os.environ.get('RANK', '0')} lost the other processes, or waited too long for them"
            fail(WorkerError(what, "see why another one ended; the same command goes on from what was saved"))
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            what = f"{error.filename or 'what is printed'}: no space left"
            fail(SpaceError(what, "free some space and run the same command again"))
        if isinstance(error, OSError) and error.filename:
            what = f"{error.filename}: {error.strerror or error}"
            fail(InputError(what, "check the place, its permissions and its disk, then run the same command again"))
        raise
    _exit(0)


@contextlib.contextmanager
def _terminable(arguments: list[str]) -> Iterator[None]:
    """Inside, a signal from outside raises `Terminated` if the verb resumes; its loops wait until all is saved."""

    def terminate(*_: object) -> NoReturn:
        raise Terminated

    if not _resumes(arguments):
        yield
        return
    with contextlib.ExitStack() as stack:
        for number in heeded_signals():
            if number != signal.SIGINT:
                stack.callback(signal.signal, number, signal.signal(number, terminate))
        yield


def _resumes(arguments: list[str]) -> bool:
    asks_for_help = not {"-h", "--help"}.isdisjoint(arguments)
    return any(word in VERBS and VERBS[word].resumes and not asks_for_help for word in arguments[:1])


def _is_out_of_memory(error: Exception) -> bool:
    """What torch raises on a GPU, and on a CPU, where the error has no class of its own."""
    return type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)


def _is_unread(error: Exception) -> bool:
    """What printing raises when nobody reads on: the pipe is broken, or the terminal closed."""
    closed = isinstance(error, OSError) and error.errno == errno.EIO and not error.filename
    return isinstance(error, BrokenPipeError) or closed


def _is_lost_connection(error: Exception) -> bool:
    """What torch raises when a collective operation fails; gloo's errors have no class of their own."""
    return "DistError" in (base.__name__ for base in type(error).__mro__) or "/gloo/" in str(error)


def _exit(code: int) -> NoReturn:
    """End the program, without letting the threads of a process group turn that into an abort."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # Python would try again at the end, and change the code to 120
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if code:  # the others may be waiting for us, and to leave the group in order is to wait for them
            os._exit(code)
        distributed = sys.modules.get("torch.distributed")
        if distributed and distributed.is_initialized():
            distributed.destroy_process_group()
    raise SystemExit(code)


def _split_processes(arguments: list[str]) -> tuple[int, list[str]]:
    """The number after --processes, or 1, and the arguments without it; raises `UsageError` where there is none."""
    at = next((at for at, word in enumerate(arguments) if word.partition("=")[0] == "--processes"), None)
    if at is None:
        return 1, arguments
    _, equals, value = arguments[at].partition("=")
    after = arguments[at + 1 :]
    if not equals:
        value, after = "".join(after[:1]), after[1:]
    if not value.isdecimal() or int(value) < 1:
        raise UsageError(
            f"--processes {value}: is not a number of processes", "give the number of GPUs, or leave it out"
        )
    rest = [*arguments[:at], *after]
    if any(word in VERBS and not VERBS[word].shared for word in rest[:1]):
        raise UsageError(f"{rest[0]}: runs in one process", "leave out --processes")
    return int(value), rest


def _this_program() -> list[str]:
    """How this program was started, without its arguments: by its name or with -m."""
    return [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]]


def run(arguments: list[str]) -> None:
    """Parse the arguments and run their verb; raises `CodeganError` for anything a user can mend."""
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, VERBS))
        lines = "\n".join(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
        print(HELP.format(verbs=lines, shared=", ".join(name for name, verb in VERBS.items() if verb.shared)))
        return
    if arguments[0] == "--version":
        from importlib.metadata import version  # late: slow to load

        print(version("codegan"))
        return
    name, *rest = arguments
    if name not in VERBS:
        raise UsageError(f"{name}: is not a verb", _did_you_mean(name, VERBS, "codegan --help"))
    verb = VERBS[name]
    if verb.of_variant:
        _run_of_variant(name, verb, rest)
    else:
        config = _parse(verb.config, f"codegan {name}", rest, _about(name, verb))
        _show(_load(name)(config))


def _load(name: str) -> Callable[..., Done | None]:
    """The work of a verb, and torch, which takes seconds and learns only then how its threads wait."""
    verb = VERBS[name]
    if "torch" not in sys.modules:
        if verb.resumes and os.environ.get("RANK", "0") == "0":
            tell(f"codegan {name}: loading torch")
        share_cores()
    return verb.load()


def _show(done: Done | None) -> None:
    """Say, once for all processes, what was written and what comes next."""
    if done and int(os.environ.get("RANK", "0")) == 0:
        with contextlib.suppress(BrokenPipeError):  # all is done, although nobody reads that
            finish(done.wrote, command(done.advice) if isinstance(done.advice, Advice) else done.advice)


def _about(name: str, verb: Verb, variant: str = "") -> str:
    """What the help says above the flags."""
    example = " ".join(f"{name} {verb.example}".replace("VARIANT", variant).split())
    shared = f"\n{PROCESSES}" if verb.shared else ""
    return f"{inspect.cleandoc(verb.config.__doc__)}\n\nExample: codegan {example}{shared}"


def _run_of_variant(name: str, verb: Verb, arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: codegan {name} [VARIANT] ...\n\n{_about(name, verb)}\n")
        print(f"variants, of which {RECOMMENDED} is taken where none is named:")
        for variant, config in CONFIGS.items():
            print(f"  {variant:<10}{(config.__doc__ or '').splitlines()[0]}")
        print(f"\n`codegan {name} VARIANT --help` shows all flags, those of the variant as --model.NAME")
        return
    if arguments[0].startswith("-"):
        stands_last = arguments[-1] in CONFIGS and not _takes_value(arguments[-2], verb.config)
        arguments = [arguments[-1], *arguments[:-1]] if stands_last else [RECOMMENDED, *arguments]
    variant, *rest = arguments
    if variant not in CONFIGS:
        raise UsageError(f"{variant}: is not a variant", _did_you_mean(variant, CONFIGS, f"codegan {name} --help"))
    config = _parse(verb.config[CONFIGS[variant]], f"codegan {name} {variant}", rest, _about(name, verb, variant))
    _show(_load(name)(variant, config))


def _takes_value(word: str, config: Any) -> bool:
    """Whether the word after this one is its value, which may be spelled like a variant."""
    if not word.startswith("--") or "=" in word or word.startswith(("--no-", "--model.no-")):
        return False
    name = word.removeprefix("--").removeprefix("model.").replace("-", "_")
    kinds = (typing.get_type_hints(kind).get(name) for kind in (config, *CONFIGS.values()))
    return name != "mirror" and bool not in kinds


def _did_you_mean(word: str, known: Any, help_command: str) -> str:
    import difflib

    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}? {help_command} lists all" if close else f"{help_command} lists all"


def _parse(config: Any, program: str, arguments: list[str], about: str) -> Any:
    """The dataclass filled from flags; tyro's boxed message of a wrong flag becomes our two lines."""
    complaint = io.StringIO()
    if shutil.get_terminal_size().columns < LEAST_COLUMNS:
        os.environ["COLUMNS"] = str(LEAST_COLUMNS)  # in fewer, tyro looks for a layout and never ends
    try:
        with contextlib.redirect_stderr(complaint):
            options, registry = (tyro.conf.FlagCreatePairsOff,), ConstructorRegistry()
            registry.struct_rule(_with_flowing_help)
            return tyro.cli(config, prog=program, description=about, args=arguments, config=options, registry=registry)
    except SystemExit as stop:
        if not stop.code:
            _exit(0)
        raise UsageError(f"{program}: {_plain(complaint.getvalue())}", f"{program} --help") from None


def _with_flowing_help(info: StructTypeInfo) -> StructConstructorSpec | None:
    """How tyro takes a dataclass apart, with the lines of each field's docstring joined to one paragraph.

    tyro itself keeps a line break of the source where the next line is indented or starts with anything but a letter.
    """
    if (spec := dataclass_rule(info)) is None:
        return None
    return replace(spec, fields=tuple(replace(field, helptext=_joined(field.helptext)) for field in spec.fields))


def _joined(text: str | Callable[[], str | None] | None) -> Callable[[], str | None]:
    """One paragraph of it; docstrings are read only where the help is shown, which takes a while."""

    def join() -> str | None:
        known = text() if callable(text) else text
        return known and " ".join(known.split())

    return join


def _plain(boxed: str) -> str:
    """tyro's box as one line, without its frame (dashes where the output is not UTF-8), title and way to the help."""
    text = re.sub(r"\x1b\[[0-9;]*m|[╭╮╰╯─│]|(?<!\S)-{3,}(?!\S)", " ", boxed)
    _, _, message = text.strip().partition("\n")
    return " ".join(message.split()).partition("For full helptext")[0].strip() or "wrong arguments"
