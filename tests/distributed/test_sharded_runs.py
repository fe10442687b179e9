"""Two sharded processes learn and score what one does, whatever the strategy, and their checkpoints serve anybody."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import sharded_runs
import torch
from launched import launch
from sharded_runs import CUT, END, MODEL, RUNS, WINDOW, data, module, trainer
from transformers import AutoModelForCausalLM
from windowed import windowed

from lit_pi import files
from lit_pi.export import command, stock, verification
from lit_pi.models import LanguageModel, Pretrained
from lit_pi.models.sources.checkpoint import checkpoints_of
from lit_pi.parallel import checkpoint_io

pytestmark = pytest.mark.filterwarnings("ignore")

QUICK = ["extrapolate", "interpolate", "dynamic-ntk", "yarn", "self-extend", "interpolate adapter", WINDOW]
"""A plain run, one of each kind of strategy, weights that wait on the CPU (`yarn`), an adapter, and windows."""

TOKENS = torch.randint(0, 264, (1, 200), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(1)
    MODEL.build()[0].save_pretrained(folder)
    windowed("mistral", num_hidden_layers=2, initializer_range=0.02).save_pretrained(folder / WINDOW)
    return folder


SWEPT = [name for name in RUNS if name not in QUICK]
"""What more strategies of the same kinds do."""


def runs_of_two(names: list[str], folder: Path, texts: Path, base: Path) -> Path:
    """What two processes left of runs."""
    launch(sharded_runs.main, folder, texts, base, names, processes=2, folder=folder, timeout=500)
    return folder


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory, texts: Path, base: Path) -> Path:
    return runs_of_two(QUICK, tmp_path_factory.mktemp("sharded"), texts, base)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, texts: Path, base: Path) -> Path:
    return runs_of_two(SWEPT, tmp_path_factory.mktemp("swept"), texts, base)


def same(found: torch.nn.Module, expected: torch.nn.Module) -> None:
    weights = dict(expected.named_parameters())
    for name, weight in found.named_parameters():
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("name", QUICK)
def test_a_sharded_run_is_the_run_of_one_process(
    name: str, sharded: Path, texts: Path, base: Path, tmp_path: Path
) -> None:
    """Steps before and after the stop, scores of windows that do not divide by two, and clipped gradients."""
    compare(name, sharded, texts, base, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", SWEPT)
def test_so_it_is_with_every_strategy(name: str, swept: Path, texts: Path, base: Path, tmp_path: Path) -> None:
    compare(name, swept, texts, base, tmp_path)


def compare(name: str, sharded: Path, texts: Path, base: Path, tmp_path: Path) -> None:
    alone, record = trainer(tmp_path)
    model = module(name, base)
    alone.fit(model, data(texts))
    alone.test(model, data(texts), verbose=False)
    ranks = [json.loads((sharded / f"{name}-{rank}.json").read_text()) for rank in range(2)]
    assert len(record.losses) == END
    for rank in ranks:
        assert rank["losses"] == pytest.approx(record.losses, abs=1e-5)
    sums = [sum(parts) for parts in zip(*(rank["sums"] for rank in ranks), strict=True)]
    assert sums == pytest.approx(record.sums.tolist(), rel=1e-6)

    resumed, later = trainer(tmp_path / "resumed")
    again = module(name, base)
    resumed.fit(again, data(texts), ckpt_path=sharded / name / f"step={CUT}.ckpt")
    assert later.losses == pytest.approx(record.losses[CUT:], abs=1e-5)
    same(again, model)

    llm, rope = Pretrained(str(sharded / name / f"step={END}.ckpt")).build()
    whole = LanguageModel(llm, again.position, rope).eval()
    with torch.no_grad():
        found, expected = (each(TOKENS[:, :-1], TOKENS[:, 1:]) for each in (whole, model.model.eval()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (name == WINDOW) == (getattr(llm.config, "sliding_window", None) is not None)


def test_a_sharded_adapter_is_exported_in_one_step(
    sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(words: list, **_: Any) -> subprocess.CompletedProcess:
        stock.main(*map(str, words[-3:]))
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(verification.subprocess, "run", here)
    checkpoint = sharded / "interpolate adapter" / f"step={END}.ckpt"
    command.export(str(checkpoint), tmp_path / "out", tokenizer="bytes")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert (exported.config.rope_parameters["rope_type"], exported.config.rope_parameters["factor"]) == ("linear", 4.0)
    merged = dict(Pretrained(str(checkpoint)).build()[0].named_parameters())
    assert {name: weight.shape for name, weight in exported.named_parameters()} == {
        name: weight.shape for name, weight in merged.items()
    }
    for name, weight in exported.named_parameters():
        assert torch.equal(weight, merged[name]), name


def test_a_killed_save_is_no_checkpoint(sharded: Path, tmp_path: Path) -> None:
    """Neither while it is written nor while an older one goes."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(sharded / "extrapolate" / f"step={END}.ckpt", folder / "step-000004.partial")
    shutil.copytree(sharded / "extrapolate" / f"step={CUT}.ckpt", folder / "step-000002.ckpt")
    assert checkpoints_of(tmp_path) == [folder / "step-000002.ckpt"]

    class KilledError(Exception):
        pass

    def killed(*_: Any, **__: Any) -> None:
        raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.shutil, "rmtree", lambda *_, ignore_errors=False: ignore_errors or killed())
        with pytest.raises(KilledError):
            checkpoint_io.AtomicCheckpointIO().remove_checkpoint(folder / "step-000002.ckpt")
    assert checkpoints_of(tmp_path) == []


def test_every_rank_refuses_a_checkpoint_that_one_finds_damaged(
    sharded: Path, texts: Path, base: Path, tmp_path: Path
) -> None:
    damaged = shutil.copytree(sharded / "extrapolate" / f"step={CUT}.ckpt", tmp_path / "damaged.ckpt")
    (shard, _) = sorted(damaged.glob("*.distcp"))
    content = bytearray(shard.read_bytes())
    content[9000] ^= 1  # amid a tensor
    shard.write_bytes(content)
    launch(sharded_runs.refused, tmp_path, texts, base, "extrapolate", processes=2, folder=tmp_path)
    said = [(tmp_path / f"refused-{rank}").read_text() for rank in range(2)]
    assert said[0] == said[1]
    assert re.match(rf"a shard of {damaged} is missing or damaged .\S+ in __\d_0.distcp: .*: copy it again", said[0])
