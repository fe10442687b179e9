"""Two processes that split every sequence between them learn, score and write what one process does."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from launched import command_lines, found_in, launch
from lightning.pytorch import Trainer

from lit_pi.callbacks import AttentionBounds
from lit_pi.cli import LitPiCLI
from lit_pi.errors import UserError
from lit_pi.models import FromScratch
from lit_pi.module import LitLlama
from lit_pi.parallel import FSDP2
from lit_pi.positions import Extrapolate

pytestmark = pytest.mark.filterwarnings("ignore")

SPLIT = [
    "--trainer.strategy=FSDP2", "--trainer.strategy.compute_dtype=float32", "--trainer.devices=2",
    "--trainer.strategy.context_parallel_size=2", "--trainer.accumulate_grad_batches=2", "--data.batch_size=1",
    "--trainer.val_check_interval=8",
]  # fmt: skip

RUNS = {
    "DynamicNTK": ["--model.position.scale=4", "--model.activation_checkpointing.mode=attention_saved"],
    "SelfExtend": [
        "--model.position.group_size=4", "--model.position.window=12", "--model.activation_checkpointing.mode=full",
    ],
    "YaRN": [
        "--model.position.scale=4", "--data.packing=single", "--model.train_positions=PoSE",
        "--model.train_positions.target_context=256",
    ],
}  # fmt: skip
"""Packed documents under two strategies, one of which has an attention rule; single ones whose positions skip."""


def fit(name: str, tiny: list[str], texts: Path) -> list[str]:
    """Steps that would show a gradient of another size, and windows that two ranks cannot share evenly."""
    evaluation = {"class_path": "Perplexity", "init_args": {
        "corpus": {"class_path": "TextFiles", "init_args": {"test": str(texts / "test" / "0[01].txt")}},
        "context_lengths": [30, 121], "stride": 29, "batch_size": 9,
    }}  # fmt: skip
    replaced = ("--model.position", "--data.evaluations", "--data.context")
    return [
        "fit", *(word for word in tiny if not word.startswith(replaced)), f"--model.position={name}", *RUNS[name],
        "--data.context_length=56", f"--data.evaluations={json.dumps({'texts': evaluation})}",
        "--model.optimizer=SGD", "--model.optimizer.lr=1", "--trainer.max_steps=4", "--trainer.val_check_interval=4",
        "--trainer.log_every_n_steps=1", "--trainer.logger=CSVLogger",
    ]  # fmt: skip


def predict(tiny: list[str], folder: Path) -> list[str]:
    (folder / "a.txt").write_text("the position of a token")
    (folder / "b.txt").write_text("turns")
    replaced = ("--model.position", "--data")
    return [
        "predict", *(word for word in tiny if not word.startswith(replaced)), "--model.position=DynamicNTK",
        "--model.position.scale=4", "--data.predict=Prompts", f"--data.predict.files={folder / '*.txt'}",
        "--data.predict.max_new_tokens=4",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny: list[str], texts: Path) -> Path:
    folder, split = tmp_path_factory.mktemp("runs"), []
    for name in (*RUNS, "predict"):
        words = predict(tiny, folder) if name == "predict" else fit(name, tiny, texts)
        single, split_run = (folder / kind / name for kind in ("single", "split"))
        for run in (single, split_run):
            log = [] if name == "predict" else [f"--trainer.logger.save_dir={run}"]
            both = [*words, *log, f"--trainer.default_root_dir={run}"]
            LitPiCLI(both) if run == single else split.append([*both, *SPLIT])
    launch(command_lines, split, processes=2, folder=folder)
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_learn_and_score_what_one_process_does(name: str, runs: Path) -> None:
    found, expected = (found_in(runs / kind / name) for kind in ("split", "single"))
    assert len(found.losses) == 4 and max(found.losses) - min(found.losses) > 0.1
    assert found.losses == pytest.approx(expected.losses, abs=1e-5)
    assert found.tokens == expected.tokens
    assert found.nll == pytest.approx(expected.nll, rel=1e-6)


def test_prompts_are_continued_once(runs: Path) -> None:
    found, expected = ((runs / kind / "predict" / "predictions.jsonl").read_text() for kind in ("split", "single"))
    assert found == expected and len(found.splitlines()) == 2


@pytest.mark.parametrize(("size", "wrong"), [(0, "it must be 1 or more"), (3, "does not divide the 2 devices")])
def test_sizes_that_do_not_fit_are_refused(size: int, wrong: str) -> None:
    with pytest.raises(UserError, match=f"context_parallel_size.* is {size}.*{wrong}"):
        Trainer(accelerator="cpu", devices=2, strategy=FSDP2(context_parallel_size=size)).strategy.setup_environment()


def test_bounds_of_whole_sequences_are_refused() -> None:
    module = LitLlama(FromScratch("7b"), Extrapolate())
    module.model = SimpleNamespace(sequence_mesh=object())
    with pytest.raises(UserError, match="attention bounds need all queries and keys"):
        AttentionBounds().on_test_start(SimpleNamespace(), module)
