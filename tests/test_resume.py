"""A run that is stopped at any moment goes on where its newest checkpoint stands."""

import signal
from pathlib import Path

import pytest
import torch
import yaml
from interrupted import killed, watched
from launched import launch, start

from lit_pi.cli import LitPiCLI
from lit_pi.models import Pretrained
from lit_pi.models.sources.checkpoint import read_content
from lit_pi.runs.status import read_status

pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = ["--trainer.max_steps=60", "--checkpoint.every_n_train_steps=20", "--trainer.limit_val_batches=0"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "step-000060.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, tiny: list[str]) -> Path:
    run = tmp_path_factory.mktemp("uninterrupted")
    LitPiCLI(["fit", *tiny, *STEPS, f"--trainer.default_root_dir={run}"])
    return run


STOPPED = {
    signal.SIGKILL: (-9, "running", None, "step-000020.ckpt"),
    signal.SIGINT: (130, "interrupted", "Ctrl-C", "step-000031.ckpt"),
    signal.SIGTERM: (143, "interrupted", "SIGTERM", "step-000031.ckpt"),
    signal.SIGUSR1: (138, "interrupted", "SIGUSR1", "step-000031.ckpt"),
}
"""Exit status, state, reason and newest checkpoint of a run that a signal meets in its 31st step."""


@pytest.mark.parametrize("how", STOPPED, ids=[how.name for how in STOPPED])
def test_a_run_that_a_signal_ends_goes_on_as_if_it_had_not_been(
    how: signal.Signals, tmp_path: Path, tiny: list[str], uninterrupted: Path
) -> None:
    code, state, reason, reached = STOPPED[how]
    again = ["fit", *tiny, *STEPS, f"--trainer.default_root_dir={tmp_path}", "--ckpt_path=auto"]
    assert start(killed, again, how, folder=tmp_path).ended() == code
    checkpoints = tmp_path / "checkpoints"
    assert [path.name for path in checkpoints.glob("*.ckpt")] == [reached]
    status = read_status(tmp_path)
    assert (status["state"], status["reason"], status["steps"]) == (state, reason, 60)
    assert status["checkpoint"] == str(checkpoints / reached)

    with pytest.raises(Exception, match=r"continue it with --ckpt_path auto"):
        LitPiCLI(again[:-1])
    LitPiCLI(again)
    asked = [yaml.safe_load((tmp_path / name).read_text())["ckpt_path"] for name in ("fit-1.yaml", "fit.yaml")]
    assert asked == [None, str(checkpoints / reached)]
    assert [read_status(tmp_path)[name] for name in ("state", "step", "steps", "reason")] == ["finished", 60, 60, None]
    expected = weights(uninterrupted)
    for name, tensor in weights(tmp_path).items():
        assert torch.equal(tensor, expected[name]), name


def seen(name: Path, run: Path, steps: int, ranks: int, workers: int, tiny: list[str]) -> list[str]:
    """Sequences that a run reads until `steps`, in order; it goes on from its newest checkpoint if it has one."""
    words = [word for word in tiny if "batch_size=2" not in word] + [
        f"--trainer.default_root_dir={run}", f"--trainer.max_steps={steps}", f"--data.num_workers={workers}",
        "--trainer.limit_val_batches=0", f"--data.batch_size={4 // ranks}", f"--trainer.devices={ranks}",
        f"--trainer.strategy={'ddp' if ranks > 1 else 'auto'}",
        *(["--ckpt_path=last"] if run.exists() else []),
    ]  # fmt: skip
    launch(watched, name, ["fit", *words], processes=ranks, folder=name.parent)
    files = [Path(f"{name}-{rank}").read_text().splitlines() for rank in range(ranks)]
    return [row for step in zip(*files, strict=True) for row in step]


def test_other_ranks_and_workers_go_on_with_the_sequences_not_seen(tmp_path: Path, tiny: list[str]) -> None:
    expected = seen(tmp_path / "whole", tmp_path / "whole-run", 9, ranks=1, workers=0, tiny=tiny)
    found = []
    for number, (steps, ranks, workers) in enumerate([(3, 1, 0), (6, 2, 0), (9, 1, 2)]):
        found += seen(tmp_path / f"part-{number}", tmp_path / "run", steps, ranks, workers, tiny)
    assert len(expected) == 36
    assert found == expected


def test_a_checkpoint_is_read_where_tensors_are_made_elsewhere(uninterrupted: Path) -> None:
    """As on a GPU, where models are built."""
    with torch.device("meta"):
        assert read_content(uninterrupted / "checkpoints" / "step-000060.ckpt")["global_step"] == 60


def test_half_a_checkpoint_is_not_taken_for_the_newest(tmp_path: Path, tiny: list[str]) -> None:
    where = f"--trainer.default_root_dir={tmp_path}"
    LitPiCLI(["fit", *tiny, where, "--trainer.max_steps=2"])
    whole = tmp_path / "checkpoints" / "step-000002.ckpt"
    (tmp_path / "checkpoints" / "step-000004.partial").write_bytes(whole.read_bytes()[:1000])
    cli = LitPiCLI(["fit", *tiny, where, "--ckpt_path=last", "--trainer.max_steps=3"])
    assert cli.config.fit.ckpt_path == str(whole)
    assert cli.trainer.global_step == 3


def test_one_runs_result_is_the_next_ones_start(tmp_path: Path, tiny: list[str], uninterrupted: Path) -> None:
    llm, rope = Pretrained(str(uninterrupted)).build()
    assert rope.original_context == 64
    for name, tensor in weights(uninterrupted).items():
        assert torch.equal(llm.state_dict()[name.removeprefix("model.llm.")], tensor)
    options = [word for word in tiny if "--model.llm" not in word]
    cli = LitPiCLI(
        ["fit", *options, "--model.llm=Pretrained", f"--model.llm.path={uninterrupted}", "--trainer.max_steps=1",
         f"--trainer.default_root_dir={tmp_path}"]
    )  # fmt: skip
    assert cli.trainer.global_step == 1


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path, tiny: list[str], uninterrupted: Path) -> None:
    other = [*tiny, "--model.llm.config.hidden_size=48", f"--trainer.default_root_dir={tmp_path}"]
    checkpoint = uninterrupted / "checkpoints" / "step-000060.ckpt"
    with pytest.raises(Exception, match=r"another architecture: .* is .* x 32 there and .* x 48 in the model"):
        LitPiCLI(["test", *other, f"--ckpt_path={checkpoint}"])
