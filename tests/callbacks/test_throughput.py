"""How fast training runs, to the digit, by a clock that only training, loading, validation and saving move."""

import json
import statistics
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_pi.batches import TrainingBatch
from lit_pi.callbacks import Throughput, throughput
from lit_pi.data.corpora import TextFiles
from lit_pi.datamodules import LongContextData
from lit_pi.datamodules import long_context as data_module
from lit_pi.evaluations import Perplexity
from lit_pi.models import FromScratch
from lit_pi.module import LitLlama
from lit_pi.positions import Extrapolate

TINY = {
    "vocab_size": 264, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip
SEQ, BATCH = 64, 2
TOKENS = SEQ * BATCH
SEEN = BATCH * SEQ * (SEQ + 1) // 2
MATRICES = 2 * (4 * 32 * 32 + 3 * 32 * 64) + 264 * 32
FLOP = 6 * MATRICES * TOKENS + 12 * 2 * 32 * SEEN
"""Of a batch: 2 layers with a hidden size of 32."""

LEARNING = [2.0, 4.0, 1.0, 8.0, 3.0]
"""Seconds of batches, in turn."""
LOADING = 0.25

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:Total length of `DataLoader`")


class Clock:
    now = 1000.0

    def perf_counter(self) -> float:
        return self.now


class Timed(LitLlama):
    """Takes the time of `LEARNING`; to score a window, and to save, takes long."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(FromScratch(config=TINY), Extrapolate())
        self.clock = clock
        self.seconds = cycle(LEARNING)

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Any:
        self.clock.now += next(self.seconds)
        return super().training_step(batch, batch_idx)

    def validation_step(self, *arguments: Any) -> Any:
        self.clock.now += 1e4
        return super().validation_step(*arguments)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        self.clock.now += 1e5


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What tells the time; training batches come late."""
    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)

    def late(*arguments: Any, collate: Any = data_module.collate, **options: Any) -> TrainingBatch:
        clock.now += LOADING
        return collate(*arguments, **options)

    monkeypatch.setattr(data_module, "collate", late)
    return clock


def fit(clock: Clock, texts: Path, run: Path, steps: int, **options: Any) -> dict[str, Any]:
    """The record of a run; it is validated and saved every so many batches and steps."""
    save = options.pop("save", 100)
    evaluation = Perplexity(TextFiles(test=str(texts / "test")), context_lengths=[32], stride=16, max_documents=1)
    data = LongContextData(
        TextFiles(train=str(texts / "train")), {"texts": evaluation}, context_length=SEQ, batch_size=BATCH,
        packing="concatenated",
    )  # fmt: skip
    trainer = Trainer(
        accelerator="cpu", devices=1, max_steps=steps, default_root_dir=run, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=1, check_val_every_n_epoch=None,
        callbacks=[Throughput(), ModelCheckpoint(run / "checkpoints", every_n_train_steps=save)],
        **{"val_check_interval": 100, "logger": TensorBoardLogger(run, name="", version=""), **options},
    )  # fmt: skip
    trainer.fit(Timed(clock), data)
    record = json.loads((run / "throughput.json").read_text())
    return record


def learning(batches: range) -> list[float]:
    return [LEARNING[batch % len(LEARNING)] for batch in batches]


def test_medians_of_the_steps_after_the_third(clock: Clock, texts: Path, tmp_path: Path) -> None:
    record = fit(clock, texts, tmp_path, 9)
    seconds = [LOADING + took for took in learning(range(3, 9))]
    assert record["steps"] == 6 and record["step"] == 9
    assert record["step_seconds"] == pytest.approx(seconds)
    assert record["seconds"] == pytest.approx(statistics.median(seconds))
    assert record["tokens_per_second"] == pytest.approx(statistics.median(TOKENS / took for took in seconds))
    assert record["flop_per_second"] == pytest.approx(statistics.median(FLOP / took for took in seconds))
    assert record["waited_seconds"] == pytest.approx(LOADING)
    assert record["devices"] == 1 and "mfu" not in record and "peak_gib" not in record


def test_batches_of_a_step_are_added(clock: Clock, texts: Path, tmp_path: Path) -> None:
    record = fit(clock, texts, tmp_path, 5, accumulate_grad_batches=2)
    seconds = [2 * LOADING + sum(learning(range(first, first + 2))) for first in (6, 8)]
    assert record["step_seconds"] == pytest.approx(seconds)
    assert record["tokens_per_second"] == pytest.approx(statistics.median(2 * TOKENS / took for took in seconds))
    assert record["waited_seconds"] == pytest.approx(2 * LOADING)


def test_validation_and_checkpoints_are_left_out(clock: Clock, texts: Path, tmp_path: Path) -> None:
    record = fit(clock, texts, tmp_path, 10, val_check_interval=4, save=3)
    interrupted = {4, 8, 3, 6, 9}  # before these batches, which were loaded meanwhile
    waited = [0 if batch in interrupted else LOADING for batch in range(3, 10)]
    expected = [wait + took for wait, took in zip(waited, learning(range(3, 10)), strict=True)]
    assert record["step_seconds"] == pytest.approx(expected)
    assert record["waited_seconds"] == pytest.approx(statistics.median(waited))
    assert clock.now > 1e5


def test_validation_amid_a_step_is_left_out(clock: Clock, texts: Path, tmp_path: Path) -> None:
    record = fit(clock, texts, tmp_path, 5, val_check_interval=7, accumulate_grad_batches=2)
    first, second = (sum(learning(range(first, first + 2))) for first in (6, 8))
    assert record["step_seconds"] == pytest.approx([LOADING + first, 2 * LOADING + second])


def test_a_logger_elsewhere_and_no_checkpoint_leave_the_record(clock: Clock, texts: Path, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path / "elsewhere")
    assert fit(clock, texts, tmp_path / "new", 5, logger=logger, limit_val_batches=0)["step"] == 5


def test_means_since_the_last_time_are_scalars(clock: Clock, texts: Path, tmp_path: Path) -> None:
    fit(clock, texts, tmp_path, 9, log_every_n_steps=4)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    names = {"tokens_per_second", "seconds", "flop_per_second", "waited_seconds"}
    assert {tag for tag in events.Tags()["scalars"] if tag.startswith("throughput/")} == {
        f"throughput/{name}" for name in names
    }
    steps = {4: range(3, 4), 8: range(4, 8), 9: range(8, 9)}
    for name, numerator in (("tokens_per_second", TOKENS), ("flop_per_second", FLOP)):
        found = {event.step: event.value for event in events.Scalars(f"throughput/{name}")}
        rates = {
            step: statistics.mean(numerator / (LOADING + took) for took in learning(batches))
            for step, batches in steps.items()
        }
        assert found == pytest.approx(rates)
