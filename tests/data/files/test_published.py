"""Foreign weight files: tensors by name or a refusal that says why."""

from pathlib import Path

import pytest
import torch

from data.errors import CorruptError, InputError, MismatchError
from data.files.published import read_state_dict


@pytest.mark.parametrize("content", [{0: torch.zeros(1)}, {"a": 1}, [torch.zeros(1)]])
def test_what_is_no_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(MismatchError, match="state dict"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["gone.pth", "gone.safetensors", "."])
def test_a_file_that_cannot_be_read_is_no_danger(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_state_dict(tmp_path / name)


def test_another_kind_of_file_is_called_damaged(tmp_path: Path) -> None:
    for suffix in (".pth", ".safetensors"):
        (tmp_path / f"w{suffix}").write_bytes(b"")
        with pytest.raises(CorruptError):
            read_state_dict(tmp_path / f"w{suffix}")
