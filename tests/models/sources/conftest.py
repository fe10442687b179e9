"""Tiny models in Hugging Face directories, which tests copy and spoil."""

from pathlib import Path

import pytest
from stored_models import save_models


@pytest.fixture(scope="package")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the directories that `save_models` writes."""
    folder = tmp_path_factory.mktemp("models")
    save_models(folder)
    return folder
