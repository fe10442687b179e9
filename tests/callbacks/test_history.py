"""A checkpoint tells how its weights came to be, and two of them whether they began and saw the same."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from launched import command_lines, launch

from lit_pi.cli import LitPiCLI
from lit_pi.command_line.closing import closing
from lit_pi.evaluations.records import load_records
from lit_pi.models import Pretrained
from lit_pi.parallel.weight_digest import weight_digest

pytestmark = pytest.mark.filterwarnings("ignore")

MEASURED = ("seconds", "gib")
STEPS = ["--trainer.max_steps=4", "--trainer.limit_val_batches=0"]


def told(run: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in each.items() if name not in MEASURED} for each in Pretrained(str(run)).history()
    ]


def fit(run: Path, tiny: list[str], *words: str) -> list[dict[str, Any]]:
    LitPiCLI(["fit", *tiny, *STEPS, f"--trainer.default_root_dir={run}", *words])
    return told(run)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    run = tmp_path_factory.mktemp("base")
    fit(run, tiny)
    return run


def test_it_says_what_determined_a_training(base: Path) -> None:
    (training,) = told(base)
    assert training["position"] == {"class": "Extrapolate"}
    assert (training["steps"], training["tokens"], training["sequences_a_step"]) == (4, 4 * 2 * 64, 2)
    assert (training["learning_rate"], training["seed"], training["adapter"]) == (2e-5, 0, None)
    (measured,) = Pretrained(str(base)).history()
    assert measured["seconds"] > 0 and measured["gib"] > 0


def test_a_command_ends_with_what_it_made_and_what_to_do_next(tmp_path: Path, tiny: list[str]) -> None:
    cli = LitPiCLI(["fit", *tiny, *STEPS, f"--trainer.default_root_dir={tmp_path}"])
    trained, where, after = closing(cli.trainer, "fit")
    assert re.fullmatch(r"Trained 4 steps, 512 tokens, in 0:00:\d\d, to a loss of 5\.\d{3} nats a token\.", trained)
    assert where == f"Run directory: {tmp_path}"
    assert f"--model.llm.path={tmp_path}`" in after


def test_equal_digests_mean_the_same_sequences_however_they_were_read(
    base: Path, tmp_path: Path, tiny: list[str]
) -> None:
    (expected,) = told(base)
    assert fit(tmp_path / "workers", tiny, "--data.num_workers=2") == [expected]
    resumed = [*tiny, f"--trainer.default_root_dir={tmp_path / 'resumed'}", "--trainer.limit_val_batches=0"]
    LitPiCLI(["fit", *resumed, "--trainer.max_steps=1"])
    LitPiCLI(["fit", *resumed, "--trainer.max_steps=4", "--ckpt_path=auto"])
    assert told(tmp_path / "resumed") == [expected]
    (smaller,) = fit(tmp_path / "micro", tiny, "--data.batch_size=1", "--trainer.accumulate_grad_batches=2")
    assert smaller == expected


def test_two_ranks_together_see_what_one_sees(base: Path, tmp_path: Path, tiny: list[str]) -> None:
    words = [*tiny, *STEPS, "--data.batch_size=1", "--trainer.devices=2", "--trainer.strategy=ddp"]
    launch(command_lines, [["fit", *words, f"--trainer.default_root_dir={tmp_path}"]], processes=2, folder=tmp_path)
    assert told(tmp_path) == told(base)


@pytest.mark.parametrize(
    ("option", "differs"),
    [
        ("--data.seed=1", {"sequences", "seed"}),
        ("--seed_everything=1", {"initial_weights"}),
        ("--model.optimizer.lr=1e-3", {"optimizer", "learning_rate"} - {"optimizer"}),
        ("--model.position={class_path: Interpolate, init_args: {scale: 2}}", {"position"}),
    ],
)
def test_what_differs_is_seen(option: str, differs: set[str], base: Path, tmp_path: Path, tiny: list[str]) -> None:
    (expected,), (other,) = told(base), fit(tmp_path, tiny, option)
    assert {name for name in expected if expected[name] != other[name]} == differs


def test_a_model_carries_every_training_it_went_through(base: Path, tmp_path: Path, tiny: list[str]) -> None:
    words = [word for word in tiny if "--model.llm" not in word and "--model.position" not in word]
    words += ["--model.llm=Pretrained", f"--model.llm.path={base}", "--model.position=Interpolate"]
    words += ["--model.position.scale=2"]
    first, second = fit(tmp_path / "tuned", words)
    assert [first] == told(base)
    assert (second["position"]["class"], second["base"]["path"]) == ("Interpolate", str(base))
    tuned = [word for word in words if "llm.path" not in word] + [f"--model.llm.path={tmp_path / 'tuned'}"]
    LitPiCLI(["test", *tuned, f"--trainer.default_root_dir={tmp_path / 'tested'}", "--trainer.limit_test_batches=1"])
    (record,) = load_records(tmp_path / "tested")
    assert [each["position"]["class"] for each in record["history"]] == ["Extrapolate", "Interpolate"]
    json.dumps(record["history"])


def test_a_digest_of_weights_tells_every_bit() -> None:
    module = torch.nn.Linear(7, 5).to(torch.bfloat16)
    before = weight_digest(module, torch.device("cpu"))
    with torch.no_grad():
        module.weight.view(torch.int16)[2, 3] ^= 1
    assert weight_digest(module, torch.device("cpu")) != before
