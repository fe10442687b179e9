"""What a test says of decoding with a cache: consistent where it is, and not where it is not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_pi.cli import LitPiCLI
from lit_pi.errors import UserError
from lit_pi.models import LanguageModel
from lit_pi.models.past import Past

pytestmark = pytest.mark.filterwarnings("ignore")
DOCUMENTS, STEPS = 4, 9


@pytest.fixture
def words(tiny: list[str], texts: Path) -> list[str]:
    evaluation = (
        "{class_path: DecodeConsistency, init_args: {corpus: {class_path: TextFiles, init_args: "
        f"{{test: {texts / 'test'}}}}}, context_length: 200, steps: {STEPS}, batch_size: 3, "
        f"max_documents: {DOCUMENTS}}}}}"
    )
    return [
        "test", *(word for word in tiny if not word.startswith(("--data.evaluations", "--model.position"))),
        f"--data.evaluations={{decode: {evaluation}}}", "--model.position=DynamicNTK", "--model.position.scale=4",
    ]  # fmt: skip


def record(run: Path) -> dict[str, Any]:
    (found,) = json.loads((run / "results.json").read_text())["records"]
    return found


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-true"])
def test_a_sound_cache_is_consistent(
    precision: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    LitPiCLI([*words, f"--trainer.precision={precision}", f"--trainer.default_root_dir={tmp_path}"])
    found = record(tmp_path)
    assert (found["kind"], found["evaluation"], found["consistent"]) == ("decode_consistency", "decode", True)
    assert found["tolerance"] == {"32-true": 1e-3, "64-true": 1e-6, "bf16-true": 0.25}[precision]
    assert found["tokens"] == DOCUMENTS * STEPS == sum(entry["tokens"] for entry in found["documents"])
    assert found["max_difference"] == max(entry["max"] for entry in found["documents"])
    mean = sum(entry["mean"] for entry in found["documents"]) / DOCUMENTS
    assert found["mean_difference"] == pytest.approx(mean) and mean <= found["max_difference"]
    assert found["protocol"]["document_ids"] == [entry["id"] for entry in found["documents"]]
    assert found["protocol"]["position"]["class"] == "DynamicNTK" and found["protocol"]["steps"] == STEPS
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "decoding with a cache against a full pass" in said
        and "DynamicNTK" in said
        and "consistent" in said
        and "NOT" not in said
    )


def test_a_cache_with_wrong_angles_is_not(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Angles of each step's own length, as transformers decodes: what the cache holds keeps those of earlier steps.

    Single tokens without a past stay as they are: with those `RopeGuard` probes the model, and would stop the run.
    """
    read = LanguageModel.read

    def growing(self: LanguageModel, input_ids: torch.Tensor, past: Past, *args: Any) -> torch.Tensor:
        if (length := past.read + input_ids.shape[1]) > 1:
            past.context_length = length
        return read(self, input_ids, past, *args)

    monkeypatch.setattr(LanguageModel, "read", growing)
    run = f"--trainer.default_root_dir={tmp_path}"
    LitPiCLI([*words, "--model.llm.config.initializer_range=0.5", run])
    found = record(tmp_path)
    assert not found["consistent"] and found["max_difference"] > found["tolerance"]
    assert "NOT consistent" in " ".join(capsys.readouterr().out.split())
    wide = [word.replace("steps: 9", "steps: 9, tolerance: 1000") for word in words]
    LitPiCLI([*wide, "--model.llm.config.initializer_range=0.5", run])
    assert record(tmp_path)["consistent"] and record(tmp_path)["tolerance"] == 1000


def test_scores_that_are_no_numbers_are_not_consistent(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = LanguageModel.read
    monkeypatch.setattr(LanguageModel, "read", lambda self, *args: read(self, *args) * torch.nan)
    LitPiCLI([*words, f"--trainer.default_root_dir={tmp_path}"])
    found = record(tmp_path)
    assert (found["consistent"], found["max_difference"], found["mean_difference"]) == (False, None, None)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("steps: 9", "steps: 200"), "reads 200 steps of context_length 200: at least one token must stand before"),
        (("steps: 9", "steps: 0"), "steps of DecodeConsistency is 0: it must be 1 or more"),
        (("length: 200", "length: 99999"), "fills a window of 99999 tokens: the longest has"),
        (("steps: 9", "steps: 9, tolerance: -1"), "tolerance of DecodeConsistency is -1"),
    ],
)
def test_mistakes_are_one_sentence(change: tuple[str, str], sentence: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises((UserError, ValueError)) as caught:
        LitPiCLI([*(word.replace(*change) for word in words), f"--trainer.default_root_dir={tmp_path}"])
    assert sentence in str(caught.value)
