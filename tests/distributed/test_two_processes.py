"""Two processes give the numbers of one: plain and sharded, training and evaluation."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PARALLELISM = {
    "plain": ["--trainer.strategy=ddp", "--trainer.devices=2"],
    "fsdp2": [
        "--trainer.strategy=FSDP2",
        "--trainer.strategy.compute_dtype=float32",
        "--trainer.devices=2",
    ],
    "single": ["--trainer.devices=1"],
}


def curve(words: list[str], run: Path) -> list[dict]:
    command = [sys.executable, "-m", "lit_pi", "test", *words, f"--trainer.default_root_dir={run}"]
    subprocess.run(command, check=True, capture_output=True, timeout=240, cwd=run)
    (record,) = json.loads((run / "results.json").read_text())["records"]
    assert not record["partial"]
    return record["curve"]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> list[dict]:
    return curve([*tiny, *PARALLELISM["single"]], tmp_path_factory.mktemp("single"))


@pytest.mark.parametrize("parallelism", ["plain", "fsdp2"])
def test_uneven_windows_neither_hang_nor_count_twice(
    parallelism: str, tmp_path: Path, tiny: list[str], single: list[dict]
) -> None:
    found = curve([*tiny, *PARALLELISM[parallelism]], tmp_path)
    for point, expected in zip(found, single, strict=True):
        assert point["context_length"] == expected["context_length"]
        assert point["tokens"] == expected["tokens"]
        assert point["token_nll"] == pytest.approx(expected["token_nll"], rel=1e-6)
