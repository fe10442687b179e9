"""Reports and summaries within limits: what is cut, what stays whole, and what is learnt."""

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from lit_pi.batches import IGNORE
from lit_pi.data.build import open_store
from lit_pi.data.corpora import GovReportCorpus
from lit_pi.data.sequences import Sequences
from lit_pi.data.tokenizer import load_tokenizer
from lit_pi.datamodules.long_context import LongContextData
from lit_pi.errors import UserError

BEFORE, AFTER = "Read the following article and then summarize it.\n", "\nNow summarize the above article.\nSummary:"
RECORDS = [("report one is long", "it was"), ("ré", "a summary that is too long"), ("short", "é" * 30), ("r", "s")]


@pytest.fixture
def files(tmp_path: Path) -> str:
    path = tmp_path / "reports.jsonl"
    path.write_text("".join(json.dumps({"report": report, "summary": text}) + "\n" for report, text in RECORDS))
    return str(path)


@pytest.mark.usefixtures("store_cache")
def test_only_the_tokens_of_a_summary_are_learnt_and_none_beyond_the_limits(files: str) -> None:
    tokenizer = load_tokenizer("bytes")
    corpus = GovReportCorpus(files, learn="summary", max_report_tokens=9, max_summary_tokens=12)
    store = open_store(corpus, "train", tokenizer)
    assert store.manifest["documents"] == {
        "read": 4, "kept": 4, "dropped": {}, "cut": {"report": 1, "summary": 2}, "duplicates": 0,
    }  # fmt: skip
    sequences = Sequences(store, tokenizer, 160, "single")
    found = set()
    for index in range(len(sequences)):
        row = sequences[index]
        learnt = row["targets"] != IGNORE
        read = bytes(int(token) for token in row["input_ids"][1 : int(learnt.nonzero()[0]) + 1]).decode()
        *summary, end = row["targets"][learnt].tolist()
        assert end == tokenizer.eos_token_id
        found.add((read, bytes(summary).decode()))
    # 12 bytes with the space before it: of 30 letters of two bytes, five.
    assert found == {
        (f"{BEFORE}report on{AFTER}", " it was"),
        (f"{BEFORE}ré{AFTER}", " a summary t"),
        (f"{BEFORE}short{AFTER}", f" {'é' * 5}"),
        (f"{BEFORE}r{AFTER}", " s"),
    }


@pytest.mark.usefixtures("store_cache")
def test_another_limit_is_another_store_and_reports_alone_are_cut_too(
    files: str, words_tokenizer: PreTrainedTokenizerFast
) -> None:
    whole = open_store(GovReportCorpus(files), "train", words_tokenizer)
    cut = open_store(GovReportCorpus(files, max_report_tokens=3), "train", words_tokenizer)
    assert cut.lengths.tolist() == [min(length, 3) for length in whole.lengths.tolist()] and whole.lengths.max() > 3
    assert cut.document(0).tolist() == whole.document(0)[:3].tolist()
    assert cut.manifest["documents"]["cut"] == {"report": int((whole.lengths > 3).sum())}


@pytest.mark.usefixtures("store_cache")
def test_what_was_cut_is_told_before_training(files: str, caplog: pytest.LogCaptureFixture) -> None:
    data = LongContextData(
        GovReportCorpus(files, learn="summary", max_report_tokens=9), context_length=160, packing="single"
    )
    with caplog.at_level("INFO"):
        data.setup("fit")
    assert "; report cut to its limit in 1" in caplog.text


def test_limits_out_of_range_are_refused(files: str) -> None:
    with pytest.raises(UserError, match="max_report_tokens of GovReportCorpus is 0: it must be 1 or more"):
        GovReportCorpus(files, max_report_tokens=0)
    with pytest.raises(UserError, match="max_summary_tokens of GovReportCorpus limits summaries: set learn: summary"):
        GovReportCorpus(files, max_summary_tokens=10)
