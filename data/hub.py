"""The Hugging Face hub: runs at hf://USER/NAME, or hf://USER/NAME@REVISION, read and written by its own client.

The client finds its token and its cache as its documentation says (HF_TOKEN, HF_HOME); neither is looked at here.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from data.errors import InputError, UsageError, one_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SCHEME = "hf"
WEIGHTS = ("weights/*.json", "weights/*.safetensors")  # all that is downloaded: numbers and JSON, no code
CARD, SAMPLES = "README.md", "samples.jpg"


class HubAddress(NamedTuple):
    repository: str  # USER/NAME
    revision: str | None  # a branch, a tag or a commit; the newest where none is named

    @classmethod
    def parse(cls, text: str) -> "HubAddress":
        """Raises `UsageError` for what is not an address on the hub."""
        match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", text, re.ASCII)
        if not match:
            raise UsageError(f"{text}: is not the name of a repository", "write hf://USER/NAME")
        return cls(match[1], match[2])

    def __str__(self) -> str:
        return f"{SCHEME}://{self.repository}" + (f"@{self.revision}" if self.revision else "")


def download(address: HubAddress) -> Path:
    """The run folder of a repository, in the client's cache, with its weights alone; raises `InputError`."""
    api = _api()
    with _hub_errors(address):
        return Path(api.snapshot_download(address.repository, revision=address.revision, allow_patterns=[*WEIGHTS]))


def upload(folder: Path, address: HubAddress, public: bool) -> None:
    """Make the repository, private unless `public`, where it does not exist, and put the folder's files into it."""
    api = _api()
    with _hub_errors(address):
        api.create_repo(address.repository, private=not public, exist_ok=True)
        api.upload_folder(
            repo_id=address.repository,
            folder_path=folder,
            revision=address.revision,
            allow_patterns=[CARD, SAMPLES, *WEIGHTS],
            commit_message="Upload a generator",
        )


@contextmanager
def _hub_errors(address: HubAddress) -> Iterator[None]:
    """Turn whatever the client raises into an `InputError` that says what it could not do."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # the client and its transport have many classes
        fix = "check the name and the network; where you need to log in, run `hf auth login` or set HF_TOKEN"
        raise InputError(f"{address}: the hub does not do this ({one_line(error)})", fix) from error


def _api() -> "HfApi":
    try:
        from huggingface_hub import HfApi  # late: an optional dependency
    except ImportError as error:
        fix = "install the extra: `pip install codegan[hub]`"
        raise UsageError(f"{SCHEME}://: needs the package huggingface_hub", fix) from error
    return HfApi(library_name="codegan")
