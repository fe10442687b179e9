"""`status.json` tells how a run ended, and who reads the run says so."""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from omegaconf import OmegaConf

from lit_pi.cli import LitPiCLI
from lit_pi.command_line.mistakes import mistake_behind
from lit_pi.errors import UserError
from lit_pi.evaluations.records import Run, add_record, label, load_records
from lit_pi.export import export
from lit_pi.models import Pretrained
from lit_pi.models.sources.checkpoint import newest_checkpoint
from lit_pi.runs.owner import is_owned, owned
from lit_pi.runs.signals import Stopped
from lit_pi.runs.status import note, read_status, say_if_unfinished, told, unfinished

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    run = tmp_path_factory.mktemp("finished")
    steps = ["--trainer.max_steps=4", "--checkpoint.every_n_train_steps=2", "--checkpoint.save_top_k=-1"]
    LitPiCLI(["fit", *tiny, *steps, "--trainer.limit_val_batches=0", f"--trainer.default_root_dir={run}"])
    return run


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (None, None),
        (Stopped(15), "was stopped at step 150 of 300 (SIGTERM)"),
        (ValueError("no\nroom"), "failed at step 150 of 300 (ValueError: no room)"),
        (UserError("no room"), "failed at step 150 of 300 (no room)"),
    ],
    ids=["well", "signal", "error", "mistake"],
)
def test_how_a_run_ended(end: BaseException | None, said: str | None, tmp_path: Path) -> None:
    try:
        with owned(tmp_path), told(tmp_path, "fit"):
            assert unfinished(tmp_path) == f"{tmp_path} still runs"
            note(tmp_path, step=150, steps=300)
            if end is not None:
                raise end
    except type(end) as error:
        assert error is end
    assert unfinished(tmp_path) == (said and f"{tmp_path} {said}")


def test_a_run_that_is_gone_without_a_word_was_killed(tmp_path: Path) -> None:
    with told(tmp_path, "fit"):
        note(tmp_path, step=1500)
        assert unfinished(tmp_path) == f"{tmp_path} was killed after step 1,500"


def test_what_runs_after_training_does_not_hide_how_that_ended(tmp_path: Path) -> None:
    with pytest.raises(Stopped), told(tmp_path, "fit"):
        raise Stopped(2)
    for _ in range(2):
        with told(tmp_path, "test"):
            pass
    assert read_status(tmp_path)["state"] == "finished"
    assert unfinished(tmp_path) == f"{tmp_path} was stopped (Ctrl-C)"


def test_training_that_cannot_begin_again_stands_where_it_stood(finished: Path, tiny: list[str]) -> None:
    before = read_status(finished)
    words = ["fit", *tiny, f"--trainer.default_root_dir={finished}", "--trainer.max_steps=9", "--ckpt_path=last"]
    other = [word.replace("hidden_size: 32", "hidden_size: 48") for word in words]
    with pytest.raises(UserError, match="another architecture"):
        LitPiCLI(other)
    assert read_status(finished) == before


def test_one_owner_at_a_time(tmp_path: Path, tiny: list[str]) -> None:
    with owned(tmp_path), told(tmp_path, "fit"):
        with pytest.raises(UserError, match=rf"is in use by `fit`, process {os.getpid()} on .*: wait until"):
            LitPiCLI(["fit", *tiny, f"--trainer.default_root_dir={tmp_path}"])
        assert is_owned(tmp_path)
    assert not is_owned(tmp_path)


def test_readers_say_that_a_run_is_unfinished(finished: Path, tmp_path: Path, capsys: Any) -> None:
    assert unfinished(finished) is None
    say_if_unfinished(finished)
    note(finished, state="interrupted", reason="SIGTERM", step=3)
    try:
        with pytest.warns(
            UserWarning, match=r"stopped at step 3 of 4 \(SIGTERM\): its newest checkpoint is not the end"
        ):
            Pretrained(str(finished)).build()
        with pytest.raises(UserError, match=r"stopped at step 3 of 4 .*: continue it .* or export .* --unfinished"):
            export(str(finished), tmp_path / "exported")
        assert not (tmp_path / "exported").exists()
        export(str(finished), tmp_path / "exported", unfinished=True)
        assert "was stopped at step 3 of 4" in capsys.readouterr().out
    finally:
        note(finished, state="finished", reason=None, step=4)


def test_the_newest_checkpoint_is_the_one_with_the_most_steps(finished: Path) -> None:
    os.utime(finished / "checkpoints" / "step-000002.ckpt")
    assert newest_checkpoint(finished).name == "step-000004.ckpt"
    by_lightning = finished / "hpc_ckpt_1.ckpt"
    (finished / "checkpoints" / "step-000004.ckpt").rename(by_lightning)
    try:
        assert newest_checkpoint(finished) == by_lightning
    finally:
        by_lightning.rename(finished / "checkpoints" / "step-000004.ckpt")


@pytest.mark.parametrize(
    "text",
    ["null", "[]", "{", '"fit"', '{"command": "test", "fit": [1]}', '{"command": "fit", "steps": "abc"}',
     '{"command": "fit", "step": true}', '{"state": {}}', "[" * 100_000, "\xff"],
    ids=range(10),
)  # fmt: skip
def test_a_damaged_status_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(UserError, match=r"status.json is damaged: remove it"):
        unfinished(tmp_path)
    with pytest.warns(UserWarning, match="A new one begins"), told(tmp_path, "fit"):
        pass
    assert read_status(tmp_path)["state"] == "finished"


@pytest.mark.parametrize("steps", [4, 3])
def test_a_run_that_is_over_says_so_and_keeps_its_end(finished: Path, steps: int, tiny: list[str]) -> None:
    words = ["fit", *tiny, f"--trainer.default_root_dir={finished}", f"--trainer.max_steps={steps}", "--ckpt_path=auto"]
    with pytest.warns(UserWarning, match=rf"Nothing is left to train: .* is of step 4, and .*max_steps is {steps}"):
        LitPiCLI(words)
    status = read_status(finished)
    assert (status["state"], status["step"]) == ("finished", 4)
    assert Path(status["checkpoint"]).name == "step-000004.ckpt"


@pytest.mark.parametrize("options", [["dirpath", "elsewhere"], ["filename", "{epoch}/s{step}"]], ids=["folder", "name"])
def test_a_run_goes_on_from_where_it_saves(options: list[str], tmp_path: Path, tiny: list[str]) -> None:
    option, value = options
    value = str(tmp_path / value) if option == "dirpath" else value
    words = [
        "fit",
        *tiny,
        f"--trainer.default_root_dir={tmp_path}",
        "--ckpt_path=auto",
        f"--checkpoint.{option}={value}",
    ]
    words += ["--trainer.limit_val_batches=0"]
    LitPiCLI([*words, "--trainer.max_steps=2"])
    cli = LitPiCLI([*words, "--trainer.max_steps=3"])
    assert cli.config.fit.ckpt_path is not None
    assert cli.trainer.global_step == 3


@pytest.mark.parametrize("make", [lambda path: path.symlink_to(path), Path.mkdir], ids=["loop", "folder"])
def test_what_has_the_name_of_a_checkpoint_and_is_none_is_told(
    make: Callable[[Path], None], tmp_path: Path, tiny: list[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    make(tmp_path / "checkpoints" / "a.ckpt")
    with pytest.raises(UserError, match=r"a.ckpt has the name of a checkpoint, and is no complete one: remove it"):
        LitPiCLI(["fit", *tiny, f"--trainer.default_root_dir={tmp_path}", "--ckpt_path=auto"])


def test_a_status_that_is_damaged_or_gone_meanwhile_is_written_anew(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with told(run, "fit"):
        (run / "status.json").write_text("{")
        note(run, step=5)
        assert (read_status(run)["command"], read_status(run)["step"]) == ("fit", 5)
        shutil.rmtree(run)
    assert [read_status(run)[field] for field in ("command", "state", "step")] == ["fit", "finished", 5]


def test_the_reason_is_the_sentence_that_was_said(tmp_path: Path) -> None:
    with pytest.raises(OSError), told(tmp_path, "fit", mistake_behind):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert read_status(tmp_path)["reason"].startswith("the disk is full")


def test_what_comes_from_the_environment_stays_out_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "not-for-everyone")
    OmegaConf.to_container(OmegaConf.create({"a": "${oc.env:MINE}"}), resolve=True)
    with pytest.raises(ValueError), told(tmp_path, "fit"):
        note(tmp_path, checkpoint="/x/not-for-everyone/y")
        raise ValueError("there is no /x/not-for-everyone")
    add_record(tmp_path, {"kind": "a", "evaluation": "b", "stage": "test", "step": 0, "path": "/not-for-everyone"})
    for name in ("status.json", "results.json"):
        text = (tmp_path / name).read_text()
        assert "not-for-everyone" not in text and "${oc.env:MINE}" in text


def test_a_reader_who_looks_keeps_nobody_out(tmp_path: Path) -> None:
    with owned(tmp_path):
        pass
    with (tmp_path / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        Timer(0.1, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
        with owned(tmp_path):
            assert is_owned(tmp_path)


def test_what_an_unfinished_model_scored_says_so(finished: Path, tmp_path: Path, tiny: list[str]) -> None:
    note(finished, state="interrupted", reason="SIGTERM", step=3)
    try:
        words = [word for word in tiny if "--model.llm" not in word]
        words += ["--model.llm=Pretrained", f"--model.llm.path={finished}", f"--trainer.default_root_dir={tmp_path}"]
        LitPiCLI(["test", *words, "--trainer.limit_test_batches=2"])
    finally:
        note(finished, state="finished", reason=None, step=4)
    (record,) = load_records(tmp_path)
    assert "was stopped at step 3 of 4 (SIGTERM)" in record["unfinished"]
    assert label(Run("a", tmp_path), record).endswith("partial, unfinished)")
