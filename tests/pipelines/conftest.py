"""Fixtures that several tests of verbs share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator's run with nothing missing; not to be changed."""
    from tests.report_pages import train_run

    return train_run(tmp_path_factory.mktemp("trained"))
