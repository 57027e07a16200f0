"""Errors that a person can act on: what is wrong, how to fix it, and a documented exit code.

| code | class           | meaning                                        |
|------|-----------------|------------------------------------------------|
| 2    | `UsageError`    | a flag, a name or a configuration is wrong     |
| 3    | `InputError`    | the input data is missing, empty or unreadable |
| 4    | `MismatchError` | two things that do not belong together         |
| 5    | `CorruptError`  | bytes on disk are damaged                      |
| 6    | `UnsafeError`   | refused because it would be unsafe             |
| 7    | `SpaceError`    | out of disk space or memory                    |
| 8    | `DivergedError` | training reached NaN or infinity               |
| 9    | `LockedError`   | another process is writing here                |
| 10   | `WorkerError`   | one of several processes failed                |
| 75   | `Preempted`     | stopped from outside, resumable                |

Success is 0 and an interrupt by the user 130.
"""

from data.advice import Advice


class CodeganError(Exception):
    """An expected failure, shown as two lines: `error: what` and `  fix: fix`.

    Where a command does what `fix` says, `advice` names it, and the command line adds how it is typed.
    """

    exit_code = 1

    def __init__(self, what: str, fix: str, advice: Advice | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.advice = advice

    def __str__(self) -> str:
        return f"error: {self.what}\n  fix: {self.fix}"

    def __reduce__(self) -> tuple[type["CodeganError"], tuple[str, str, Advice | None]]:
        return type(self), (self.what, self.fix, self.advice)


class UsageError(CodeganError):
    exit_code = 2


class InputError(CodeganError):
    exit_code = 3


class MismatchError(CodeganError):
    exit_code = 4


class CorruptError(CodeganError):
    exit_code = 5


class UnsafeError(CodeganError):
    exit_code = 6


class SpaceError(CodeganError):
    exit_code = 7


class DivergedError(CodeganError):
    exit_code = 8


class LockedError(CodeganError):
    exit_code = 9


class WorkerError(CodeganError):
    exit_code = 10


class Preempted(CodeganError):
    exit_code = 75


class Terminated(BaseException):
    """A signal from outside, such as SIGTERM, where no loop waits for it.

    Like `KeyboardInterrupt`, it is for the command line alone to handle.
    """


def one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
