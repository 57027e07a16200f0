"""Files of a folder on this machine, each once, with links that stay inside it followed."""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from data.sources.locations import CONFIG_COPY, DRAWN

_OUTSIDE = "outside the folder, not followed; put the original in its place (cp --recursive --dereference)"


class File(NamedTuple):
    name: str  # relative to the folder, with slashes
    path: Path
    size: int  # bytes


@dataclass
class Walk:
    """What a folder holds: regular files, what cannot be used and why, remarks by name, and folders that are closed.

    A link that stays inside `root` is followed: one to a file always, one to a folder unless the folder is walked in
    its own place or by another link. So links in a circle end, and no folder is walked twice.
    """

    root: Path  # resolved
    is_wanted: Callable[[str], bool]  # whether a relative name is one to list
    files: list[File] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)  # names of other files that are not hidden
    _links: list[tuple[str, Path]] = field(default_factory=list)  # to folders, not followed yet
    _walked: set[Path] = field(default_factory=set)

    def run(self) -> None:
        """Walk the folder itself, and then what its links lead to."""
        self._walk(self.root, "")
        while self._links:
            links, self._links = sorted(self._links), []
            for name, path in links:
                self._follow(name, path)

    def _walk(self, top: Path, prefix: str) -> None:
        def unreadable(error: OSError) -> None:
            # a name inside the folder, since the folder is a class of its own
            name = f"{prefix}{(Path(error.filename).relative_to(top) / '*').as_posix()}"
            self.refused.append((name, f"folder cannot be read: {error.strerror}"))
            self.closed.append(error.filename)

        for folder, subfolders, names in os.walk(top, onerror=unreadable):
            here = Path(folder)
            below = prefix if here == top else f"{prefix}{here.relative_to(top).as_posix()}/"
            if here != self.root and not {CONFIG_COPY, DRAWN}.isdisjoint(names):
                self.notes[below.rstrip("/")] = "made by codegan, not read"  # or a run would read the images of another
                subfolders.clear()
                continue
            if here in self._walked:  # by a link to it, before this link to a folder that holds it
                subfolders.clear()
                continue
            self._walked.add(here)
            subfolders[:] = sorted(name for name in subfolders if not is_litter(name))
            for name in sorted(names):
                self._add(f"{below}{name}", here / name)
            self._links += [(f"{below}{name}", here / name) for name in subfolders if (here / name).is_symlink()]

    def _add(self, name: str, path: Path) -> None:
        if not self.is_wanted(name):
            self.ignored += [] if is_litter(path.name) else [name]
            return
        try:
            status = path.stat()
            is_inside = not path.is_symlink() or path.resolve().is_relative_to(self.root)
        except (OSError, RuntimeError) as error:  # links in a circle raise either
            reason = error.strerror if isinstance(error, OSError) else "links in a circle"
            self.refused.append((name, f"cannot be read: {reason}"))
            return
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait forever
            self.refused.append((name, "not a regular file"))
        elif not is_inside:
            self.refused.append((name, f"a link to a file {_OUTSIDE}"))
        else:
            self.files.append(File(name, path, status.st_size))

    def _follow(self, name: str, path: Path) -> None:
        target = path.resolve()
        if not target.is_relative_to(self.root):
            self.refused.append((f"{name}/*", f"a link to a folder {_OUTSIDE}"))
        elif target in self._walked:
            inside = target.relative_to(self.root).as_posix()
            self.notes[name] = (
                f"a link to {'the folder itself' if inside == '.' else inside}, not followed a second time"
            )
        else:
            self._walk(target, f"{name}/")


def is_litter(name: str) -> bool:
    """Whether a file or folder is hidden, or put there by a file manager."""
    return name.startswith((".", "__MACOSX", "@eaDir"))
