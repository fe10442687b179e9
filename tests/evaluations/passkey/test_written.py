"""Passkeys that the model writes, against teacher forcing, on a model whose next token is known by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from lit_pi.callbacks import Measurements
from lit_pi.data.tokenizer import load_tokenizer
from lit_pi.datamodules import LongContextData
from lit_pi.errors import UserError
from lit_pi.evaluations import PasskeyRetrieval
from lit_pi.models import FromScratch
from lit_pi.module import LitLlama
from lit_pi.positions import DynamicNTK, Extrapolate, PositionStrategy

VOCABULARY = 264
TINY: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": VOCABULARY, "intermediate_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 2, "max_position_embeddings": 64, "head_dim": 16,
}  # fmt: skip


class Bigrams(LitLlama):
    """Writes the byte that `after` names after each byte, a full stop after all others."""

    after: dict[str, str]

    def on_test_start(self) -> None:
        llm = self.model.llm
        with torch.no_grad():
            for layer in self.model.decoder_layers:
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
            llm.get_input_embeddings().weight.copy_(torch.eye(VOCABULARY))
            head = llm.get_output_embeddings().weight.zero_()
            head[ord(".")] = 1
            for before, then in self.after.items():
                head[ord(then), ord(before)] = 2


KEYS = {440: ([12345] * 6, [12345, 12346, 92345, 12345, 13345, 12345]), 420: ([12346] * 6, [12345] * 2 + [13345] * 4)}
"""By context length, depth and trial."""
CORRECT = [6, 3, 0, 2]
SAYS_12345 = {"s": " ", " ": "1", "1": "2", "2": "3", "3": "4", "4": "5"}


def found(
    run: Path, after: dict[str, str], monkeypatch: pytest.MonkeyPatch, position: PositionStrategy, **options: Any
) -> dict[str, Any]:
    passkey = PasskeyRetrieval([420, 440], "grid", depths=2, trials=6, batch_size=4, **options)
    draw = passkey._key
    monkeypatch.setattr(
        passkey, "_key", lambda length, cell, trial: (KEYS[length][cell][trial], draw(length, cell, trial)[1])
    )
    module = Bigrams(FromScratch(config=TINY), position)
    module.after = after
    trainer = Trainer(
        accelerator="cpu", devices=1, enable_progress_bar=False, default_root_dir=run, callbacks=[Measurements()],
        logger=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.test(module, LongContextData(None, {"keys": passkey}), verbose=False)
    (record,) = json.loads((run / "results.json").read_text())["records"]
    return record


@pytest.mark.parametrize("position", [Extrapolate(), DynamicNTK(scale=4)], ids=type)
def test_both_scores_agree_on_every_cell(
    position: PositionStrategy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced = found(tmp_path / "forced", SAYS_12345, monkeypatch, position)
    written = found(tmp_path / "written", SAYS_12345, monkeypatch, position, score="generate")
    assert [(cell["n"], cell["correct"]) for cell in forced["cells"]] == [(6, correct) for correct in CORRECT]
    assert written["lengths"] == forced["lengths"]
    unknown = {"log_probability": None, "token_accuracy": None}
    assert written["cells"] == [cell | unknown for cell in forced["cells"]]
    # Wrong are one token of 12346, and of 92345 and 13345 the one after the wrong digit too.
    assert [cell["token_accuracy"] for cell in forced["cells"]] == [1, 31 / 36, 30 / 36, 28 / 36]
    assert written["protocol"]["score"] == "generate" and "first number" in written["protocol"]["correct_is"]


def test_other_words_before_the_key_are_allowed_and_digits_after_it_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talks = SAYS_12345 | {"s": ":", ":": " "}
    forced = found(tmp_path / "forced", talks, monkeypatch, Extrapolate())
    written = found(tmp_path / "talks", talks, monkeypatch, Extrapolate(), score="generate", max_new_tokens=9)
    goes_on = talks | {"5": "6"}
    longer = found(tmp_path / "goes-on", goes_on, monkeypatch, Extrapolate(), score="generate", max_new_tokens=9)
    counts = [[cell["correct"] for cell in record["cells"]] for record in (forced, written, longer)]
    assert counts == [[0] * 4, CORRECT, [0] * 4]


def test_answers_of_no_token_are_refused() -> None:
    with pytest.raises(UserError, match="max_new_tokens of PasskeyRetrieval is 0: it must be 1 or more"):
        PasskeyRetrieval([420], score="generate", max_new_tokens=0)


def test_what_is_asked_is_the_prompt_without_its_answer() -> None:
    tokenizer = load_tokenizer("bytes")
    passkey = PasskeyRetrieval([420, 440], "grid", depths=2, trials=3, batch_size=5, score="generate")
    passkey.prepare(tokenizer)
    batches = passkey.batches("keys", tokenizer, world_size=2)
    asked = {}
    for index in range(len(batches)):
        batch = batches[index]
        assert batch.decoding.max_new_tokens == len(" 12345") and batch.decoding.temperature == 0
        for row, number in enumerate(batch.documents.tolist()):
            if number >= 0:
                asked[number] = batch.input_ids[row, : batch.lengths[row]].tolist()
                assert int(batch.context_lengths[row]) == passkey.samples[number].context_length
    for number, sample in enumerate(passkey.samples):
        *question, _, _, _, _, _, _ = passkey.prompt(*sample[:3]).tokens.tolist()
        assert asked.pop(number) == question
        assert tokenizer.decode(question).endswith("The pass key is")
    assert not asked
