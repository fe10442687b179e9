"""Curves as a user finds them, against a loop over stock transformers written from the definition."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lit_pi.callbacks import PerplexityCurve
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import LlamaConfig, LlamaForCausalLM

from lit_pi.data import LongContextData
from lit_pi.data.corpora import TextFiles
from lit_pi.data.evaluations import Perplexity
from lit_pi.models import FromScratch
from lit_pi.module import LitLlama
from lit_pi.positions import DynamicNTK, Extrapolate, Interpolate, PositionStrategy, Rope

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:Total length of `DataLoader`")

BOS_ID = 256
TINY: dict[str, Any] = {
    "vocab_size": 264,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 16,
}
CONTEXT_LENGTHS = [16, 32, 48]


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of L - 1, L, L + 1 and more tokens for context lengths L."""
    folder = tmp_path_factory.mktemp("documents")
    for number, length in enumerate([15, 16, 17, 31, 32, 33, 5, 47, 48, 110]):
        (folder / f"{number}.txt").write_bytes(bytes((7 * number + 3 * place) % 90 + 32 for place in range(length)))
    return folder


def trainer(run: Path, **kwargs: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", devices=1, enable_model_summary=False, enable_progress_bar=False, default_root_dir=run,
        callbacks=[PerplexityCurve()], enable_checkpointing=False, **{"logger": False, **kwargs},
    )  # fmt: skip


def data(documents: Path, **kwargs: Any) -> LongContextData:
    corpus = TextFiles(train=str(documents), test=str(documents))
    evaluation = Perplexity(corpus, **{"context_lengths": CONTEXT_LENGTHS, "stride": 5, "batch_size": 3, **kwargs})
    return LongContextData(corpus, {"bytes": evaluation}, context_length=16)


def records(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "results.json").read_text())["records"]


def brute_force(stock: LlamaForCausalLM, documents: Path, length: int, stride: int, bos: str) -> tuple[float, int]:
    """Mean nats a token and tokens, one window at a time with all its logits."""
    total, count = 0.0, 0
    for path in documents.iterdir():
        tokens, begin, scored_to = list(path.read_bytes()), 0, 0
        while scored_to < len(tokens):
            prefix = [BOS_ID] if bos == "every" or (bos == "first" and begin == 0) else []
            window = [*prefix, *tokens[begin : begin + length - len(prefix)]]
            with torch.no_grad():
                log_probs = stock(torch.tensor([window]), use_cache=False).logits[0].log_softmax(-1)
            end = begin + len(window) - len(prefix)
            for place in range(max(scored_to, begin + 1 - len(prefix)), end):
                total -= float(log_probs[place - begin + len(prefix) - 1, tokens[place]])
                count += 1
            begin, scored_to = begin + stride, end
    return total / count, count


@pytest.mark.parametrize("bos", ["every", "first", "none"])
@pytest.mark.parametrize("position", [Extrapolate(), Interpolate(scale=3), DynamicNTK(scale=2)], ids=type)
def test_curves_equal_brute_force(position: PositionStrategy, bos: str, tmp_path: Path, documents: Path) -> None:
    module = LitLlama(FromScratch(config=TINY), position)
    trainer(tmp_path, precision="64-true").test(module, data(documents, bos=bos), verbose=False)
    (record,) = records(tmp_path)

    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    parameters = dynamic if isinstance(position, DynamicNTK) else position.rope_parameters(Rope(8, 1e4, 16))
    stock = LlamaForCausalLM._from_config(LlamaConfig(**TINY, rope_parameters=parameters), dtype=torch.float64)
    stock.load_state_dict(module.model.llm.state_dict())
    for point in record["curve"]:
        mean, count = brute_force(stock.eval(), documents, point["context_length"], 5, bos)
        assert point["tokens"] == count
        assert point["token_nll"] == pytest.approx(mean, rel=1e-5)
        assert point["perplexity"] == pytest.approx(math.exp(mean), rel=1e-5)
    assert [point["context_length"] for point in record["curve"]] == CONTEXT_LENGTHS
    assert record["protocol"]["one_forward_for_all_context_lengths"] == (not isinstance(position, DynamicNTK))


def test_a_test_leaves_its_protocol_figures_and_scalars(tmp_path: Path, documents: Path) -> None:
    module = LitLlama(FromScratch(config=TINY), Interpolate(scale=2))
    logger = TensorBoardLogger(tmp_path, name="", version="")
    trainer(tmp_path, logger=logger).test(module, data(documents, stride=8, min_tokens=40), verbose=False)
    (record,) = records(tmp_path)
    assert (record["kind"], record["evaluation"], record["stage"]) == ("perplexity_curve", "bytes", "test")
    assert record["definition"] == "token_weighted" and not record["partial"]
    expected = {
        "context_lengths": CONTEXT_LENGTHS, "stride": 8, "bos": "every", "documents": 3,
        "document_ids": ["7.txt", "8.txt", "9.txt"], "documents_left_out": 7,
        "position": {"class": "Interpolate", "scale": 2, "target_context": None},
        "precision": "32-true", "compute_dtype": "float32", "checkpoint": None,
    }  # fmt: skip
    assert {key: record["protocol"][key] for key in expected} == expected
    assert record["protocol"]["model"]["class"] == "FromScratch"
    assert record["protocol"]["model"].items() >= TINY.items()
    assert record["protocol"]["attention_kernel"]
    assert all((tmp_path / "figures" / f"bytes-perplexity.{ending}").stat().st_size for ending in ("png", "svg"))
    events = EventAccumulator(str(tmp_path)).Reload()
    for point in record["curve"]:
        (scalar,) = events.Scalars(f"bytes/perplexity/{point['context_length']}")
        assert scalar.value == pytest.approx(point["perplexity"], rel=1e-6)
    assert events.Tags()["images"] == ["bytes/perplexity"]


def test_a_second_test_replaces_the_first(tmp_path: Path, documents: Path) -> None:
    module = LitLlama(FromScratch(config=TINY), Extrapolate())
    for stride in (4, 8):
        trainer(tmp_path).test(module, data(documents, stride=stride), verbose=False)
    assert [record["protocol"]["stride"] for record in records(tmp_path)] == [8]


def test_batches_left_out_are_told(tmp_path: Path, documents: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = LitLlama(FromScratch(config=TINY), Extrapolate())
    trainer(tmp_path, limit_test_batches=2).test(module, data(documents), verbose=False)
    (record,) = records(tmp_path)
    assert record["partial"]
    assert "partial" in capsys.readouterr().out


def test_training_measures_when_due_and_the_sanity_check_tells_nothing(tmp_path: Path, documents: Path) -> None:
    module = LitLlama(FromScratch(config=TINY), Extrapolate())
    schedule = {"max_steps": 6, "val_check_interval": 1, "num_sanity_val_steps": 2}
    trainer(tmp_path, **schedule).fit(module, data(documents, every_n_steps=3))
    found = records(tmp_path)
    assert [(record["stage"], record["step"], record["partial"]) for record in found] == [
        ("fit", 3, False),
        ("fit", 6, False),
    ]
    assert found[0]["curve"] != found[1]["curve"]


def test_half_precision_does_not_reach_the_sums(tmp_path: Path, documents: Path) -> None:
    class Constant(LitLlama):
        """Every token costs 1/3 nat, which bfloat16 sums of hundreds of tokens would lose."""

        def test_step(self, batch: Any, *indices: int) -> dict[str, Any]:
            third = torch.full(batch.targets.shape, 1 / 3, dtype=torch.float32) * (batch.targets >= 0)
            return {"token_nll": [third[:, span.start : span.stop] for span in batch.spans]}

    module: LightningModule = Constant(FromScratch(config=TINY), Extrapolate())
    trainer(tmp_path, precision="bf16-true").test(module, data(documents), verbose=False)
    for point in records(tmp_path)[0]["curve"]:
        assert point["token_nll"] == pytest.approx(1 / 3, rel=1e-6)
