"""What the environment gave stays out of the files and sentences that tell of a run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lit_pi.cli import LitPiCLI
from lit_pi.secrets import hidden

pytestmark = pytest.mark.filterwarnings("ignore")
SECRET = "pass  word's 1"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_MINE", SECRET)
    monkeypatch.setenv("LIST_OF_MINE", json.dumps(["open sesame", "another word"]))
    monkeypatch.setenv("PIN_OF_MINE", "x1y")


def test_secrets_stay_out_of_saved_configurations(tmp_path: Path, tiny: list[str]) -> None:
    token = "hf_" + "a1B2" * 8
    logger = {
        "class_path": "CSVLogger",
        "init_args": {
            "save_dir": str(tmp_path / "logs"), "name": "${ oc.env:SECRET_OF_MINE }", "version": token,
            "prefix": "pre-${.name}-${oc.env:PIN_OF_MINE}",
        },
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"trainer": {"logger": logger}}))
    run = tmp_path / "run"
    LitPiCLI(
        ["fit", *tiny, f"--trainer.default_root_dir={run}", "--trainer.max_steps=1", f"--config={tmp_path}/mine.yaml",
         "--model.llm.config.architectures=${oc.decode:${oc.env:LIST_OF_MINE}}"]
    )  # fmt: skip
    logs = tmp_path / "logs" / SECRET / token
    for saved in ((run / "fit.yaml").read_text(), (logs / "hparams.yaml").read_text()):
        assert not any(secret in saved for secret in ("word's", "sesame", "x1y", token))
    kept = yaml.safe_load((run / "fit.yaml").read_text())["trainer"]["logger"]["init_args"]
    assert kept["name"] == "${oc.env:SECRET_OF_MINE}"
    assert kept["prefix"] == "pre-${oc.env:SECRET_OF_MINE}-${oc.env:PIN_OF_MINE}"


def test_secrets_stay_out_of_printed_configurations(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        LitPiCLI(["fit", *tiny, "--trainer.default_root_dir=${oc.env:SECRET_OF_MINE}/runs", "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["trainer"]["default_root_dir"] == "${oc.env:SECRET_OF_MINE}/runs"


@pytest.mark.parametrize(
    "option",
    [
        "--trainer.logger={class_path: CSVLogger, init_args: {nme: '${oc.env:SECRET_OF_MINE}'}}",
        "--trainer.logger={class: CSVLogger, name: 'a-long-text-before-it-that-is-cut-${oc.env:SECRET_OF_MINE}'}",
        "--model.optimizer={class_path: SGD, init_args: {lr: '${oc.env:SECRET_OF_MINE}'}}",
    ],
)
def test_secrets_stay_out_of_errors(option: str, tiny: list[str], refused: Callable[..., str]) -> None:
    sentence = refused("fit", *tiny, option)
    assert "word" not in sentence.replace("SECRET_OF_MINE", ""), sentence


def test_a_short_value_is_hidden_as_a_word_alone(tmp_path: Path, tiny: list[str], refused: Callable[..., str]) -> None:
    refused("fit", *tiny, "--model.optimizer.lr=${oc.env:PIN_OF_MINE}")
    assert hidden("x1y and ax1y, x1y.") == "${oc.env:PIN_OF_MINE} and ax1y, ${oc.env:PIN_OF_MINE}."
