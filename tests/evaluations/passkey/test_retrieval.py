"""Passkeys as a user finds them: equal to greedy decoding, and to the digit what a stand-in answers."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from prompts import batch_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lit_pi.batches import IGNORE, ScoringBatch
from lit_pi.callbacks import Measurements
from lit_pi.cli import LitPiCLI
from lit_pi.data.corpora import TextFiles
from lit_pi.datamodules import LongContextData
from lit_pi.evaluations import PasskeyRetrieval, Perplexity
from lit_pi.models import FromScratch, LanguageModel
from lit_pi.models.decoding.generation import generate
from lit_pi.module import LitLlama
from lit_pi.positions import DynamicNTK, Extrapolate, Interpolate, PositionStrategy

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:Total length of `DataLoader`")

TINY: dict[str, Any] = {
    "vocab_size": 264, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip
BOS = 256


def trainer(run: Path, **kwargs: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", devices=1, enable_model_summary=False, enable_progress_bar=False, default_root_dir=run,
        callbacks=[Measurements()], enable_checkpointing=False, **{"logger": False, **kwargs},
    )  # fmt: skip


def data(*args: Any, **kwargs: Any) -> LongContextData:
    return LongContextData(None, {"keys": PasskeyRetrieval(*args, **kwargs)})


def records(run: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads((run / "results.json").read_text(), parse_constant=refuse)["records"]


class StandIn(LitLlama):
    """Answers as many trials of a cell as it was told, of the others all tokens but one; 0.25 nats a token."""

    answered: dict[tuple[int, int], int]

    def test_step(self, batch: ScoringBatch, *indices: int) -> dict[str, Any]:
        (samples,) = (evaluation.samples for evaluation in self.trainer.datamodule.evaluations.values())
        rank = torch.zeros_like(batch.targets)
        for row, number in enumerate(batch.documents.tolist()):
            if number >= 0 and samples[number].trial >= self.answered[samples[number][:2]]:
                rank[row, -1 - number % 5] = 3
        return {"token_nll": [0.25 * (batch.targets != IGNORE)], "token_rank": [rank]}


# Of 10 trials by cell, and what follows by hand: k_max at 20, 50 and 90 %, Wilson's bounds of 2 and 9 of 10.
ANSWERED = {512: [10, 10, 9, 9], 768: [9, 5, 2, 0], 1024: [10, 1, 10, 10]}
K_MAX = {512: [512, 512, 512], 768: [576, 384, 192], 1024: [256, 256, 256]}
WILSON = {2: (0.0566822, 0.5098375), 9: (0.5958500, 0.9821238), 10: (0.7224672, 1.0), 0: (0.0, 0.2775328)}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    run = tmp_path_factory.mktemp("told")
    module = StandIn(FromScratch(config=TINY), Interpolate(4))
    module.answered = {(length, cell): n for length, own in ANSWERED.items() for cell, n in enumerate(own)}
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setenv("COLUMNS", "200")
        patch.setattr("lit_pi.callbacks.measurements.Console.print", lambda self, table: lines.append(_text(table)))
        trainer(run, logger=TensorBoardLogger(run, name="", version="")).test(
            module, data(list(ANSWERED), "paper", distances=4, trials=10, batch_size=3), verbose=False
        )
    (record,) = records(run)
    return run, record, "".join(lines)


def _text(table: Any) -> str:
    return "\n".join(" | ".join(cells) for cells in zip(*(column.cells for column in table.columns), strict=True))


def test_known_answers_give_their_cells_and_k_max(told: tuple[Path, dict[str, Any], str]) -> None:
    _, record, _ = told
    found = defaultdict(list)
    for cell in record["cells"]:
        found[cell["context_length"]].append(cell)
        assert cell["n"] == 10 and cell["accuracy"] == cell["correct"] / 10
        assert cell["nominal_distance"] == cell["context_length"] // 4 * (cell["cell"] + 1)
        assert cell["log_probability"] == pytest.approx(-1.5)
        assert cell["token_accuracy"] == pytest.approx((60 - (10 - cell["correct"])) / 60)
        if cell["correct"] in WILSON:
            assert (cell["low"], cell["high"]) == pytest.approx(WILSON[cell["correct"]], abs=1e-6)
    assert {length: [cell["correct"] for cell in own] for length, own in found.items()} == ANSWERED
    for length in record["lengths"]:
        answered = sum(ANSWERED[length["context_length"]])
        assert (length["n"], length["correct"], length["accuracy"]) == (40, answered, answered / 40)
        assert list(length["k_max"].values()) == K_MAX[length["context_length"]]
        assert list(length["k_max"]) == ["20", "50", "90"]


def test_record_scalars_table_and_figures(told: tuple[Path, dict[str, Any], str]) -> None:
    run, record, table = told
    assert {key: record[key] for key in ("kind", "evaluation", "stage", "step", "partial")} == {
        "kind": "passkey", "evaluation": "keys", "stage": "test", "step": 0, "partial": False,
    }  # fmt: skip
    expected = {
        "mode": "paper", "cells": 4, "trials": 10, "samples": 120, "seed": 0, "context_lengths": [1024, 768, 512],
        "position": {"class": "Interpolate", "scale": 4, "target_context": None}, "precision": "32-true",
    }  # fmt: skip
    assert {key: record["protocol"][key] for key in expected} == expected
    assert record["protocol"]["tokenizer"]["name"] == "bytes"
    events = EventAccumulator(str(run)).Reload()
    for length, own in ANSWERED.items():
        assert events.Scalars(f"keys/passkey/accuracy/{length}")[0].value == pytest.approx(sum(own) / 40)
        assert events.Scalars(f"keys/passkey/k_max_20/{length}")[0].value == K_MAX[length][0]
    assert events.Tags()["images"] == ["keys/passkey"]
    assert table.splitlines() == [
        f"{run.name}: Interpolate (scale 4) | 512 | 40 | 95.0 (83.5 to 98.6) | 512 | 512 | 512 | none | 512",
        f"{run.name}: Interpolate (scale 4) | 768 | 40 | 40.0 (26.3 to 55.4) | 576 | 384 | 192 | 768 | 576",
        f"{run.name}: Interpolate (scale 4) | 1,024 | 40 | 77.5 (62.5 to 87.7) | 256 | 256 | 256 | 512 | 1,024",
    ]
    drawing = (run / "figures" / "keys-passkey.svg").read_text()
    assert (run / "figures" / "keys-passkey.png").stat().st_size
    for text in ("768 tokens, k_max@20 576", "original context, 64", f"keys, {run.name}: Interpolate (scale 4)"):
        assert f"<!-- {text} -->" in drawing


@pytest.mark.parametrize("mode", ["grid", "random"])
def test_other_modes_draw_what_they_found(mode: str, tmp_path: Path) -> None:
    module = StandIn(FromScratch(config=TINY), Extrapolate())
    module.answered = {(length, cell): 3 - cell for length in (512, 640) for cell in range(3)}
    trainer(tmp_path).test(module, data([640, 512], mode, depths=3, trials=4), verbose=False)
    (record,) = records(tmp_path)
    drawing = (tmp_path / "figures" / "keys-passkey.svg").read_text()
    if mode == "grid":
        assert [cell["correct"] for cell in record["cells"]] == [3, 2, 1, 3, 2, 1]
        assert [cell["depth"] for cell in record["cells"]] == pytest.approx([0, 0.5, 1] * 2, abs=0.01)
        # The key's depth falls as its distance grows: 1 of 4 at depth 1, the nearest, is the first that must hold.
        near, middle, far = sorted(cell["distance"] for cell in record["cells"] if cell["context_length"] == 512)
        assert record["lengths"][0]["k_max"] == {"20": round(far), "50": 0, "90": 0} and near < middle < far
        for text in ("75", "50", "25", "0%", "50%", "100%", "512", "640"):
            assert f"<!-- {text} -->" in drawing
    else:
        assert [(cell["context_length"], cell["n"], cell["correct"]) for cell in record["cells"]] == [
            (640, 4, 3), (512, 4, 3),
        ]  # fmt: skip
        assert [length["k_max"] for length in record["lengths"]] == [None, None]


@pytest.mark.parametrize("position", [Interpolate(4), DynamicNTK(scale=4)], ids=type)
def test_a_prompt_is_answered_when_greedy_decoding_begins_with_the_key(
    position: PositionStrategy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An untrained model's own continuation stands in for the key, in some prompts with one token changed."""
    passkey = PasskeyRetrieval([420], "random", trials=12, batch_size=5)
    source = FromScratch(config=TINY)
    module = LitLlama(source, position)
    build, greedy, wanted = passkey.prompt, {}, {}

    def prompt(*place: int) -> Any:
        found, trial = build(*place), place[2]
        if module.model is None:
            return found
        if trial not in greedy:
            asked = batch_of([found.tokens[: -len(found.answer)]], len(found.answer))
            said = generate(module.model.eval(), asked).token_ids[0]
            greedy[trial], wanted[trial] = said.tolist(), said.tolist()
            if trial % 4:
                place_changed = {1: 0, 2: 2, 3: 5}[trial % 4]
                wanted[trial][place_changed] = (said[place_changed].item() + 1) % 256
        return found._replace(answer=torch.tensor(wanted[trial]).numpy())

    monkeypatch.setattr(passkey, "prompt", prompt)
    trainer(tmp_path).test(module, LongContextData(None, {"keys": passkey}), verbose=False)
    (record,) = records(tmp_path)
    hits = [trial for trial in greedy if wanted[trial] == greedy[trial]]
    assert (len(hits), len(greedy)) == (3, 12)
    assert (record["cells"][0]["n"], record["cells"][0]["correct"]) == (12, len(hits))

    # And trial by trial, with ranks from all logits of the whole row.
    for trial in greedy:
        ids = torch.from_numpy(prompt(420, 0, trial).tokens)[None]
        with torch.no_grad():
            module.model.rotary.context_length = 420
            logits = module.model.llm(ids, use_cache=False).logits[0, -7:-1]
            scored = torch.arange(413, 419)
            scores = module.model(ids, ids[:, -6:], scored=scored, ranked=True)
        order = logits.argsort(descending=True).tolist()
        assert scores.token_rank[0].tolist() == [
            row.index(int(token)) for row, token in zip(order, ids[0, -6:], strict=True)
        ]
        nll = -logits.log_softmax(-1).gather(-1, ids[0, -6:, None])[:, 0]
        torch.testing.assert_close(scores.token_nll[0], nll)
        assert bool((scores.token_rank == 0).all()) == (trial in hits)


def test_a_model_of_no_numbers_finds_nothing(tmp_path: Path) -> None:
    class Broken(LitLlama):
        def on_test_start(self) -> None:
            nn.init.constant_(self.model.llm.lm_head.weight, torch.nan)

    trainer(tmp_path).test(Broken(FromScratch(config=TINY), Extrapolate()), data([420], trials=1), verbose=False)
    (record,) = records(tmp_path)
    assert {(cell["correct"], cell["log_probability"]) for cell in record["cells"]} == {(0, None)}


def test_ignored_targets_have_rank_0_and_ranks_cost_only_who_asks() -> None:
    llm, rope = FromScratch(config=TINY).build()
    model = LanguageModel(llm, Extrapolate(), rope)
    ids = torch.randint(0, 256, (2, 9))
    targets = torch.full((2, 9), IGNORE)
    targets[0, 3] = 7
    plain, ranked = model(ids, targets), model(ids, targets, ranked=True)
    assert isinstance(plain, torch.Tensor) and torch.equal(plain, ranked.token_nll)
    assert ranked.token_rank.shape == targets.shape and not ranked.token_rank[targets == IGNORE].any()


def test_batches_left_out_are_told_and_give_no_k_max(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = LitLlama(FromScratch(config=TINY), Extrapolate())
    passkeys = data([420, 440], "grid", depths=2, trials=2)
    trainer(tmp_path, limit_test_batches=6).test(module, passkeys, verbose=False)
    (record,) = records(tmp_path)
    assert record["partial"] and "partial" in capsys.readouterr().out
    complete = {length["context_length"]: length["k_max"] is not None for length in record["lengths"]}
    assert complete == {440: True, 420: False}


def test_training_measures_when_due_beside_perplexity(tmp_path: Path, texts: Path) -> None:
    corpus = TextFiles(train=str(texts / "train"), test=str(texts / "test"))
    evaluations = {
        "keys": PasskeyRetrieval([420], "grid", depths=2, trials=2, every_n_steps=2),
        "texts": Perplexity(corpus, context_lengths=[64], stride=32, max_documents=1, every_n_steps=3),
    }
    run = trainer(tmp_path, max_steps=4, val_check_interval=1, num_sanity_val_steps=2)
    run.callbacks.append(Measurements())
    run.fit(LitLlama(FromScratch(config=TINY), Extrapolate()), LongContextData(corpus, evaluations, context_length=64))
    found = [(record["kind"], record["stage"], record["step"]) for record in records(tmp_path)]
    assert sorted(found, key=lambda entry: entry[2]) == [
        ("passkey", "fit", 2), ("perplexity_curve", "fit", 3), ("passkey", "fit", 4),
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*:jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_the_command_line_from_end_to_end(tmp_path: Path, tiny: list[str]) -> None:
    words = [word for word in tiny if not word.startswith("--data.evaluations")]
    evaluation = (
        "{class_path: PasskeyRetrieval, init_args: {context_lengths: [400, 450], mode: grid, depths: 3, trials: 2}}"
    )
    LitPiCLI(["test", *words, f"--data.evaluations={{keys: {evaluation}}}", f"--trainer.default_root_dir={tmp_path}"])
    (record,) = records(tmp_path)
    assert (record["kind"], record["evaluation"], record["stage"]) == ("passkey", "keys", "test")
    assert [(cell["context_length"], cell["n"]) for cell in record["cells"]] == [(450, 2)] * 3 + [(400, 2)] * 3
    assert all((tmp_path / "figures" / f"keys-passkey.{ending}").stat().st_size for ending in ("png", "svg"))
