"""Curves as a user finds them, against a loop over stock transformers written from the definition."""

import itertools
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from windowed import windowed

from lit_pi.callbacks import Measurements
from lit_pi.data.corpora import TextFiles
from lit_pi.datamodules import LongContextData
from lit_pi.errors import UserError
from lit_pi.evaluations import Perplexity
from lit_pi.evaluations.perplexity import first_look
from lit_pi.evaluations.perplexity.paired import paired_perplexities
from lit_pi.models import FromScratch, Pretrained
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
        callbacks=[Measurements()], enable_checkpointing=False, **{"logger": False, **kwargs},
    )  # fmt: skip


def data(documents: Path, **kwargs: Any) -> LongContextData:
    corpus = TextFiles(train=str(documents), test=str(documents))
    evaluation = Perplexity(corpus, **{"context_lengths": CONTEXT_LENGTHS, "stride": 5, "batch_size": 3, **kwargs})
    return LongContextData(corpus, {"bytes": evaluation}, context_length=16)


def records(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "results.json").read_text())["records"]


Windows = list[tuple[str, list[tuple[int, float]]]]
"""For each window: its document, and the places and losses of the tokens that it scores."""


def one_by_one(stock: PreTrainedModel, documents: Path, length: int, stride: int, bos: str) -> Windows:
    """One window at a time with all its logits."""
    windows = []
    for path in documents.iterdir():
        tokens, begin, scored_to = list(path.read_bytes()), 0, 0
        while scored_to < len(tokens):
            prefix = [BOS_ID] if bos == "every" or (bos == "first" and begin == 0) else []
            window = [*prefix, *tokens[begin : begin + length - len(prefix)]]
            with torch.no_grad():
                log_probs = stock(torch.tensor([window]), use_cache=False).logits[0].log_softmax(-1)
            end = begin + len(window) - len(prefix)
            scores = [
                (place, -float(log_probs[place - begin + len(prefix) - 1, tokens[place]]))
                for place in range(max(scored_to, begin + 1 - len(prefix)), end)
            ]
            windows.append((path.name, scores))
            begin, scored_to = begin + stride, end
    return windows


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def definitions(windows: Windows, common_from: int) -> dict[str, float]:
    """Each from its words; text is ASCII, so a byte is a token here."""
    scored = [(place, loss) for _, scores in windows for place, loss in scores]
    names = list(dict.fromkeys(name for name, _ in windows))
    by_document = [[loss for other, scores in windows if other == name for _, loss in scores] for name in names]
    first_windows = [next(scores for other, scores in windows if other == name) for name in names]
    return {
        "token_weighted": math.exp(mean([loss for _, loss in scored])),
        "window_mean": math.exp(mean([mean([loss for _, loss in scores]) for _, scores in windows])),
        "document_mean": math.exp(mean([mean(losses) for losses in by_document])),
        "common_tokens": math.exp(mean([loss for place, loss in scored if place >= common_from])),
        "truncate": math.exp(mean([mean([loss for _, loss in scores]) for scores in first_windows])),
        "bits_per_byte": mean([loss for _, loss in scored]) / math.log(2),
    }


@pytest.mark.parametrize("bos", ["every", "first", "none"])
@pytest.mark.parametrize("position", [Extrapolate(), Interpolate(scale=3), DynamicNTK(scale=2)], ids=type)
def test_every_definition_equals_brute_force(
    position: PositionStrategy, bos: str, tmp_path: Path, documents: Path
) -> None:
    module = LitLlama(FromScratch(config=TINY), position)
    trainer(tmp_path, precision="64-true").test(module, data(documents, bos=bos, disjoint=True), verbose=False)
    (record,) = records(tmp_path)

    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    parameters = dynamic if isinstance(position, DynamicNTK) else position.rope_parameters(Rope(8, 1e4, 16))
    stock = LlamaForCausalLM._from_config(LlamaConfig(**TINY, rope_parameters=parameters), dtype=torch.float64)
    stock.load_state_dict(module.model.llm.state_dict())
    stock.eval()
    found = {
        name: {point["context_length"]: point["value"] for point in points}
        for name, points in record["definitions"].items()
    }
    for point in record["curve"]:
        length = point["context_length"]
        windows = one_by_one(stock, documents, length, 5, bos)
        expected = definitions(windows, CONTEXT_LENGTHS[-1] - 5)
        apart = one_by_one(stock, documents, length, length - (2 if bos == "first" else 1), bos)
        expected["disjoint"] = definitions(apart, 0)["token_weighted"]
        assert {name: values[length] for name, values in found.items()} == pytest.approx(expected, rel=1e-5)
        assert point["tokens"] == sum(len(scores) for _, scores in windows)
        assert point["perplexity"] == found["token_weighted"][length]
        assert point["token_nll"] == pytest.approx(math.log(expected["token_weighted"]), rel=1e-5)
    assert [point["context_length"] for point in record["curve"]] == CONTEXT_LENGTHS
    assert record["protocol"]["one_forward_for_all_context_lengths"] == (not isinstance(position, DynamicNTK))


def test_a_model_with_a_window_has_the_curve_of_stock_transformers(tmp_path: Path, documents: Path) -> None:
    """Contexts up to several windows, and beyond the one of pre-training."""
    for kind, window in (("window", 8), ("full", None)):
        windowed("mistral", sliding_window=window, max_position_embeddings=16).save_pretrained(tmp_path / kind)
    module = LitLlama(Pretrained(str(tmp_path / "window")), Extrapolate())
    trainer(tmp_path, precision="64-true").test(module, data(documents), verbose=False)
    (record,) = records(tmp_path)
    stock, full = (
        AutoModelForCausalLM.from_pretrained(tmp_path / kind, dtype=torch.float64).eval() for kind in ("window", "full")
    )
    for point in record["curve"]:
        windows = one_by_one(stock, documents, point["context_length"], 5, "every")
        expected = definitions(windows, CONTEXT_LENGTHS[-1] - 5)["token_weighted"]
        assert point["perplexity"] == pytest.approx(expected, rel=1e-5)
    others = one_by_one(full, documents, CONTEXT_LENGTHS[-1], 5, "every")
    assert definitions(others, CONTEXT_LENGTHS[-1] - 5)["token_weighted"] != pytest.approx(expected, rel=0.01)


def test_one_pass_gives_what_separate_passes_give(tmp_path: Path, documents: Path) -> None:
    module = LitLlama(FromScratch(config=TINY), Interpolate(scale=3))
    trainer(tmp_path / "one").test(module, data(documents), verbose=False)
    (together,) = records(tmp_path / "one")
    for number, length in enumerate(CONTEXT_LENGTHS):
        trainer(tmp_path / str(length)).test(module, data(documents, context_lengths=[length]), verbose=False)
        (alone,) = records(tmp_path / str(length))
        for name in ("token_weighted", "window_mean", "document_mean", "truncate", "bits_per_byte"):
            one, other = together["definitions"][name][number], alone["definitions"][name][0]
            assert one["context_length"] == other["context_length"] == length
            keys = ("value", "low", "high")
            assert [one[key] for key in keys] == pytest.approx([other[key] for key in keys], rel=1e-5)


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
    for figure in ("perplexity", "loss_by_position"):
        assert all((tmp_path / "figures" / f"bytes-{figure}.{ending}").stat().st_size for ending in ("png", "svg"))
    events = EventAccumulator(str(tmp_path)).Reload()
    for point in record["curve"]:
        (scalar,) = events.Scalars(f"bytes/perplexity/{point['context_length']}")
        assert scalar.value == pytest.approx(point["perplexity"], rel=1e-6)
    assert events.Tags()["images"] == ["bytes/perplexity", "bytes/loss_by_position"]


def test_the_tables_say_what_the_results_say(
    tmp_path: Path, documents: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = LitLlama(FromScratch(config=TINY), Interpolate(scale=2))
    trainer(tmp_path).test(module, data(documents, disjoint=True), verbose=False)
    (record,) = records(tmp_path)
    ids = record["protocol"]["document_ids"]
    rows = pyarrow.parquet.read_table(tmp_path / record["table"]).to_pylist()
    assert [(row["scheme"], row["context_length"], row["document"]) for row in rows] == [
        (scheme, length, name) for scheme in ("sliding", "disjoint") for length in CONTEXT_LENGTHS for name in ids
    ]
    tokens = pyarrow.parquet.read_table(tmp_path / "scores" / "bytes-test-tokens.parquet").to_pylist()
    for name, points in record["definitions"].items():
        for point in points:
            own = [
                row
                for row in rows
                if row["context_length"] == point["context_length"] and row[f"{name}_numerator"] is not None
            ]
            assert len(own) == len(ids)
            quotient = sum(row[f"{name}_numerator"] for row in own) / sum(row[f"{name}_denominator"] for row in own)
            assert point["value"] == pytest.approx(quotient if name == "bits_per_byte" else math.exp(quotient))
            if point["effective_documents"] >= 1.5:
                assert point["low"] < point["value"] < point["high"]
            assert 0 < point["largest_share"] <= 1 and point["sampling_low"] is None
    for number, name in enumerate(ids):
        text = (documents / name).read_bytes()
        own = [row for row in tokens if row["document"] == number]
        assert [row["position"] for row in own] == list(range(len(text)))
        (sums,) = (
            row for row in rows if (row["scheme"], row["context_length"], row["document"]) == ("sliding", 32, name)
        )
        assert (sums["tokens"], sums["bytes"]) == (len(text), len(text))
        assert sums["nll"] == pytest.approx(math.fsum(row["sliding_32"] for row in own))
    printed = " ".join(capsys.readouterr().out.split())
    assert "documents in effect" in printed and "largest share" in printed
    assert "stride 5; <bos> before every window; 10 documents;" in printed
    assert "one forward for all context lengths" in printed
    for definition in ("mean of windows", "mean of documents", "common tokens", "disjoint windows", "bits per byte"):
        assert definition in printed


def test_a_sample_of_windows_stands_for_all(
    tmp_path: Path, documents: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = LitLlama(FromScratch(config=TINY), DynamicNTK(scale=2))
    for name, options in {"full": {}, "sampled": {"num_windows": 30}, "all": {"num_windows": 1000}}.items():
        trainer(tmp_path / name).test(module, data(documents, **options), verbose=False)
        printed = " ".join(capsys.readouterr().out.split())
        assert ("30 of 47 later windows, seed 0" in printed) == (name == "sampled")
        assert "a forward for each context length, on which DynamicNTK depends" in printed
    (full,), (sampled,), (everything,) = (records(tmp_path / name) for name in ("full", "sampled", "all"))
    estimate = "differences from disjoint windows"
    assert sampled["protocol"]["sampling"] == {"num_windows": 30, "of": 47, "seed": 0, "estimate": estimate}
    assert sampled["protocol"]["disjoint"] == list(CONTEXT_LENGTHS) and "disjoint" in sampled["definitions"]
    assert sampled["protocol"]["windows_fingerprint"] == full["protocol"]["windows_fingerprint"]
    assert everything["curve"] == full["curve"] and everything["protocol"]["sampling"] is None
    assert not sampled["partial"]
    for point, truth in zip(sampled["curve"], full["curve"], strict=True):
        assert point["tokens"] < truth["tokens"]
        assert point["sampling_low"] < point["perplexity"] < point["sampling_high"]
        assert point["perplexity"] == pytest.approx(truth["perplexity"], rel=0.05)


def long_data(folder: Path, **kwargs: Any) -> LongContextData:
    """Three documents of 900 bytes with 540 windows beside first ones."""
    folder.mkdir()
    for number in range(3):
        text = bytes((place * place // (7 + number) + place) % 90 + 32 for place in range(900))
        (folder / f"{number}.txt").write_bytes(text)
    return data(folder, **{"context_lengths": [16, 32], "stride": 5, "batch_size": 8, **kwargs})


def test_a_pilot_finds_how_many_windows_a_precision_takes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = LitLlama(FromScratch(config=TINY), Interpolate(scale=2))
    found = long_data(tmp_path / "texts", precision=0.01, disjoint=True)
    trainer(tmp_path / "asked").test(module, found, verbose=False)
    drawn = found.evaluations["bytes"].sample.num_windows
    windows = {"context_lengths": [16, 32], "stride": 5, "batch_size": 8}
    given = data(tmp_path / "texts", **windows, num_windows=drawn)
    trainer(tmp_path / "given").test(module, given, verbose=False)
    chosen = data(tmp_path / "texts", **windows, precision=0.01)
    trainer(tmp_path / "chosen").test(module, chosen, verbose=False)
    (asked,), (told,), (cheapest,) = (records(tmp_path / name) for name in ("asked", "given", "chosen"))
    sampling = asked["protocol"]["sampling"]
    assert 32 <= drawn < 531 and (sampling["num_windows"], sampling["of"], sampling["seed"]) == (drawn, 531, 0)
    assert asked["protocol"]["sampling_precision"] == 0.01
    assert asked["definitions"] == told["definitions"] and not asked["partial"]
    for point in (*asked["curve"], *cheapest["curve"]):
        assert point["sampling_high"] / point["perplexity"] - 1 <= 0.013  # asked for 0.01, from a pilot
    assert paired_perplexities(tmp_path / "asked", tmp_path / "given")[0].difference.value == 0
    assert [each["protocol"]["disjoint"] for each in (asked, told, cheapest)] == [[16, 32], [16, 32], [32]]


class Watched(LitLlama):
    """Notes in which state it is when it scores."""

    def validation_step(self, batch: Any, *indices: int) -> dict[str, Any]:
        self.states = [*getattr(self, "states", []), (self.model.training, torch.is_grad_enabled())]
        return super().validation_step(batch, *indices)

    def on_train_batch_start(self, *args: Any) -> None:
        self.states.append("train" if self.model.training and torch.is_grad_enabled() else "wrong")


def test_a_pilot_of_training_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    module = Watched(FromScratch(config=TINY), Interpolate(scale=2))
    found = long_data(tmp_path / "texts", precision=0.02, max_documents=2)
    schedule = {"max_steps": 2, "val_check_interval": 2, "num_sanity_val_steps": 0}
    trainer(tmp_path, **schedule).fit(module, found)
    scored = [state for state in module.states if state not in ("train", "wrong")]
    assert set(scored) == {(False, False)} and "wrong" not in module.states
    assert module.states.index("train") > 4, "the pilot came before training"
    (record,) = records(tmp_path)
    assert record["protocol"]["sampling"]["num_windows"] >= 32


def test_what_a_run_will_cost_is_said_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_seconds = itertools.count(step=0.5)
    monkeypatch.setattr(first_look, "time", SimpleNamespace(perf_counter=lambda: next(half_seconds)))
    module = LitLlama(FromScratch(config=TINY), Interpolate(scale=2))
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        many = long_data(tmp_path / "texts", batch_size=4)
        trainer(tmp_path / "many").test(module, many, verbose=False)
        few = data(tmp_path / "texts", context_lengths=[16, 32], stride=5, batch_size=64)
        trainer(tmp_path / "few").test(module, few, verbose=False)
    # A document has 175 windows of 32 tokens, and 3 that only the shorter context length needs.
    cost = "bytes: 534 windows, 16,944 tokens to read"
    timed, untimed = [message for message in caplog.messages if "to read" in message]
    assert timed == f"{cost}, about 0:01:07" and untimed == cost  # half a second for every 4 windows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": 0.0}, "precision of Perplexity is 0.0: it must be above 0 and below 1"),
        ({"precision": 0.01, "num_windows": 8}, "precision stands beside num_windows"),
        ({"num_windows": 1}, "num_windows of Perplexity is 1: it must be 2 or more and a multiple of 2"),
    ],
)
def test_samples_that_make_no_sense_are_refused(options: dict[str, Any], message: str, documents: Path) -> None:
    with pytest.raises(UserError, match=message):
        data(documents, **options)


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
