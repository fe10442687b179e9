"""Summaries as a user finds them: to the digit what a stand-in wrote, and the same from any batch and any seed."""

import json
import socket
from pathlib import Path
from typing import Any, NoReturn

import pyarrow.parquet
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_pi.batches import Generated, GenerationBatch
from lit_pi.callbacks import Measurements
from lit_pi.cli import LitPiCLI
from lit_pi.data.corpora import GovReportCorpus
from lit_pi.datamodules import LongContextData
from lit_pi.errors import UserError
from lit_pi.evaluations import Summarization
from lit_pi.evaluations.summaries.scores import measure
from lit_pi.models import FromScratch
from lit_pi.module import LitLlama
from lit_pi.positions import Extrapolate

pytestmark = pytest.mark.filterwarnings("ignore")

TINY: dict[str, Any] = {
    "vocab_size": 264, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip
REPORTS = [
    ("The office counted boats and more boats in the harbour.", "The office counted boats."),
    ("A report on roads: roads are long and roads are old.", "Roads are long and old."),
    ("Nobody knows what the third report was about.", "It is unknown what it was about."),
]
WRITTEN = {
    (0, 0): "The office counted boats.", (0, 1): "boats and more boats and more boats and more boats",
    (1, 0): "Roads are old. ", (1, 1): "", (2, 0): "what the third report was about", (2, 1): "unknown",
}  # fmt: skip
NEW = 50


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> NoReturn:
        raise AssertionError("nothing here needs the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def files(tmp_path: Path) -> str:
    path = tmp_path / "reports.jsonl"
    path.write_text("".join(json.dumps({"report": report, "summary": text}) + "\n" for report, text in REPORTS))
    return str(path)


def summaries(files: str, max_report_tokens: int | None = 52, **options: Any) -> Summarization:
    corpus = GovReportCorpus(None, None, files, learn="summary", max_report_tokens=max_report_tokens)
    return Summarization(corpus, **{"max_new_tokens": NEW, "seeds": [0, 1], "batch_size": 4, **options})


class StandIn(LitLlama):
    """Writes what it was told, and ends all texts but one that is as long as may be."""

    def test_step(self, batch: GenerationBatch, *indices: int) -> dict[str, Any]:
        (evaluation,) = self.trainer.datamodule.evaluations.values()
        texts = [WRITTEN[evaluation.samples[index]].encode() if index >= 0 else b"" for index in batch.documents]
        lengths = torch.tensor([len(text) for text in texts])
        rows = torch.tensor([[*text, *[0] * (NEW - len(text))] for text in texts])
        return Generated(rows, lengths, lengths < NEW)._asdict()


def test_known_summaries_give_their_measures(files: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = Trainer(
        accelerator="cpu", devices=1, enable_model_summary=False, enable_progress_bar=False,
        default_root_dir=tmp_path, callbacks=[Measurements()], logger=TensorBoardLogger(tmp_path, "", ""),
    )  # fmt: skip
    data = LongContextData(None, {"reports": summaries(files)})
    trainer.test(StandIn(FromScratch(config=TINY), Extrapolate()), data, verbose=False)
    (record,) = json.loads((tmp_path / "results.json").read_text())["records"]
    assert {key: record[key] for key in ("kind", "evaluation", "stage", "partial", "summaries", "documents")} == {
        "kind": "summarization", "evaluation": "reports", "stage": "test", "partial": False, "summaries": 6,
        "documents": 3,
    }  # fmt: skip
    # Of the reports the first is longer than 52 bytes.
    expected = {"documents_cut": {"report": 1}, "temperature": 0.5, "top_p": 0.95, "max_new_tokens": NEW}
    assert {key: record["protocol"][key] for key in expected} == expected

    rows = pyarrow.parquet.read_table(tmp_path / record["table"]).to_pylist()
    assert [(row["id"], row["seed"]) for row in rows] == [
        (f"reports.jsonl:{line}", seed) for line in (1, 2, 3) for seed in (0, 1)
    ]
    for row, ((document, _), text) in zip(rows, WRITTEN.items(), strict=True):
        report, reference = REPORTS[document]
        source = f"Read the following article and then summarize it.\n{report[:52]}\nNow summarize the above article."
        found = measure(text, reference, source, len(text), len(text) == NEW)
        assert {name: row[name] for name in found._fields} == pytest.approx(found._asdict())
        assert row["summary"] == text.strip()
    assert [row["rouge1"] for row in rows][:1] == [100] and [row["capped"] for row in rows] == [0, 100, 0, 0, 0, 0]

    said, events = " ".join(capsys.readouterr().out.split()), EventAccumulator(str(tmp_path)).Reload()
    for entry in record["measures"]:
        values = [row[entry["measure"]] for row in rows]
        assert entry["mean"] == pytest.approx(sum(values) / 6)
        assert entry["low"] <= entry["mean"] <= entry["high"]
        (scalar,) = events.Scalars(f"reports/summaries/{entry['measure']}")
        assert scalar.value == pytest.approx(entry["mean"])
        assert f"{entry['mean']:.2f} │ {entry['low']:.2f} to {entry['high']:.2f} │ " in said
    assert "6 summaries of 3 documents" in said and "Warning: 3.0 documents are in effect" in said
    assert "report cut to its limit in 1 of 3 documents" in said


def texts(run: Path) -> dict[tuple[str, int], str]:
    (record,) = json.loads((run / "results.json").read_text())["records"]
    rows = pyarrow.parquet.read_table(run / record["table"]).to_pylist()
    return {(row["id"], row["seed"]): row["summary"] for row in rows}


def test_a_summary_depends_on_its_seed_and_on_nothing_around_it(files: str, tiny: list[str], tmp_path: Path) -> None:
    words = [word for word in tiny if not word.startswith("--data.evaluations")]
    found = {}
    for name, options in {
        "one": "batch_size: 1", "all": "batch_size: 6", "some": "batch_size: 3, max_documents: 2",
        "seed": "batch_size: 6, seeds: [1, 7]",
    }.items():  # fmt: skip
        evaluation = (
            "{class_path: Summarization, init_args: {corpus: {class_path: GovReportCorpus, init_args: "
            f"{{test: {files}, learn: summary}}}}, max_new_tokens: 12, seeds: [0, 1], {options}}}}}"
        ).replace("seeds: [0, 1], batch_size: 6, seeds", "batch_size: 6, seeds")
        run = tmp_path / name
        LitPiCLI(["test", *words, f"--data.evaluations={{texts: {evaluation}}}", f"--trainer.default_root_dir={run}"])
        found[name] = texts(run)
    assert found["one"] == found["all"] and len(found["all"]) == 6
    assert len(found["some"]) == 4 and found["some"].items() <= found["all"].items()
    same = found["seed"].keys() & found["all"].keys()
    assert len(same) == 3 and all(found["seed"][key] == found["all"][key] for key in same)
    assert len(set(found["all"].values())) == 6


def test_mistakes_are_one_sentence(files: str, tmp_path: Path) -> None:
    tokenizer = LongContextData(None, {}).tokenizer
    before, after = (
        "Read the following article and then summarize it.\n",
        "\nNow summarize the above article.\nSummary:",
    )
    longest = 1 + len(before + REPORTS[0][0] + after)  # with <bos>
    fit = longest + NEW
    with pytest.raises(
        UserError, match=rf"the prompt of reports.jsonl:1 takes {longest} tokens, .*set that to {fit} or"
    ):
        summaries(files, max_report_tokens=None, context_length=fit - 1).prepare(tokenizer)
    fits = summaries(files, max_report_tokens=None, context_length=fit)
    fits.prepare(tokenizer)
    assert fits.describe()["longest_prompt"] == longest and fits.describe()["documents_cut"] == {}
    with pytest.raises(UserError, match=r"document reports.jsonl:1 of gov_report, test, has no prompt to continue"):
        Summarization(GovReportCorpus(test=files)).prepare(tokenizer)
    with pytest.raises(UserError, match="temperature 0 writes the same summary for every seed"):
        summaries(files, temperature=0.0)
    with pytest.raises(UserError, match=r"seeds of the Summarization evaluation are \[1, 1\]: give different ones"):
        summaries(files, seeds=[1, 1])
    with pytest.raises(UserError, match="batch_size of Summarization is 0"):
        summaries(files, batch_size=0)
    (tmp_path / "none.jsonl").write_text(json.dumps({"report": "a report", "summary": " "}) + "\n")
    with pytest.raises(UserError, match=r"none.jsonl:1 of gov_report, test, has no summary to compare with"):
        summaries(str(tmp_path / "none.jsonl")).prepare(tokenizer)
