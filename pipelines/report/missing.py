"""Parts that a run does not have, each with the command that makes it: the rest of the run is worth a look."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from data.errors import CodeganError, one_line


class Missing(Exception):
    """A sentence that names what is missing, and the command that makes it."""

    def __init__(self, sentence: str, command: str) -> None:
        super().__init__(sentence)
        self.sentence, self.command = sentence, command


@contextmanager
def needing(what: str, advice: str, command: str) -> Iterator[None]:
    """Turn whatever goes wrong into `Missing`: what a run refers to may be damaged, moved or of another version."""
    try:
        yield
    except Missing:
        raise
    except Exception as error:
        reason = error.what if isinstance(error, CodeganError) else one_line(error)
        raise Missing(f"{what} ({reason}). {advice}", command) from error


def attempt[**P, T](command: str, make: Callable[P, T], *given: P.args, **named: P.kwargs) -> T | Missing:
    """What `make` returns, or what it lacks; `command` looks for the damage behind any other error."""
    try:
        with needing("This part cannot be shown", "This command looks for damage:", command):
            return make(*given, **named)
    except Missing as lack:
        return lack
