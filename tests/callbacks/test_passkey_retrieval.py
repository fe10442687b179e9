"""Maps of found keys: equal to greedy decoding, and to the digit what a stand-in answers."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lit_pi.callbacks import PasskeyRetrieval

from lit_pi.cli import LitPiCLI
from lit_pi.data import Passkey
from lit_pi.data.batches import IGNORE
from lit_pi.models import FromScratch
from lit_pi.module import LitLlama
from lit_pi.positions import DynamicNTK, Interpolate, PositionStrategy

pytestmark = pytest.mark.filterwarnings("ignore")

CONFIG = {
    "vocab_size": 258, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 64,
}  # fmt: skip


class StandIn(LitLlama):
    """Answers some questions right, some half, some not at all."""

    def answers(self, length: int, cell: int, trial: int) -> int:
        """How many tokens of the answer are right."""
        return {1200: [6, 6, 6, 0], 1400: [6, 3, 6, 6], 1700: [0, 6, 6, 6]}[length][cell] if trial % 4 else 6 - cell

    def test_step(self, batch, *indices):
        samples = self.trainer.datamodule.evaluations["passkey"].samples
        rank = (batch.targets != IGNORE).long()
        for row, number in zip(rank, batch.documents.tolist(), strict=True):
            if number >= 0:
                sample = samples[number]
                row[row.nonzero()[: self.answers(*sample[:3]), 0]] = 0
        return {"token_nll": [0.5 * (batch.targets != IGNORE)], "token_rank": [rank]}


def interval(correct: int, questions: int) -> tuple[float, float]:
    """Wilson's interval by its definition: the shares from which the observed one is 1.96 deviations away."""
    shares = np.linspace(0, 1, 2_000_001)
    inside = np.abs(correct / questions - shares) <= 1.959964 * np.sqrt(shares * (1 - shares) / questions)
    return float(shares[inside].min()), float(shares[inside].max())


@pytest.mark.parametrize("mode", ["paper", "grid"])
def test_cells_intervals_and_k_max_follow_from_the_answers(mode: str, tmp_path: Path) -> None:
    module = StandIn(FromScratch(config=CONFIG), Interpolate(4))
    passkey = Passkey([1200, 1400, 1700], mode, trials=8)
    passkey.evaluations["passkey"].cells = 4
    trainer = Trainer(
        accelerator="cpu", devices=1, default_root_dir=tmp_path, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, callbacks=[PasskeyRetrieval()],
    )  # fmt: skip
    trainer.test(module, passkey, verbose=False)
    (record,) = json.loads((tmp_path / "results.json").read_text())["records"]
    assert len(record["cells"]) == 12
    samples = passkey.evaluations["passkey"].samples
    reached = {}
    for length in (1200, 1400, 1700):
        own = [cell for cell in record["cells"] if cell["context_length"] == length]
        by_distance = sorted({sample.distance for sample in samples if sample.context_length == length})
        assert [cell["distance"] for cell in own] == by_distance
        for cell in own:
            asked = [s for s in samples if s.context_length == length and s.distance == cell["distance"]]
            right = [module.answers(*sample[:3]) for sample in asked]
            assert cell["questions"] == 8
            assert cell["correct"] == sum(number == 6 for number in right)
            assert (cell["low"], cell["high"]) == pytest.approx(interval(cell["correct"], 8), abs=2e-6)
            assert cell["token_accuracy"] == pytest.approx(sum(right) / 48)
            assert cell["log_probability"] == pytest.approx(-3.0)
        for threshold in (0.2, 0.5, 0.9):
            good = [cell["correct"] / 8 >= threshold for cell in own] + [False]
            until = good.index(False)
            reached[length, threshold] = own[until - 1]["distance"] if until else 0
    for found in record["k_max"]:
        for threshold in (0.2, 0.5, 0.9):
            assert found[f"{threshold:.0%}"] == reached[found["context_length"], threshold]
    assert (tmp_path / "figures" / "passkey-passkey.svg").exists()


@pytest.mark.parametrize("position", [Interpolate(4), DynamicNTK(scale=4)], ids=["interpolate", "dynamic"])
def test_an_answer_counts_when_greedy_decoding_gives_it(
    position: PositionStrategy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    module = LitLlama(FromScratch(config=CONFIG), position)
    module.trainer = SimpleNamespace(strategy=None, datamodule=None)
    monkeypatch.setattr(module, "_check_data", lambda size: None)
    module.configure_model()
    module.eval()
    passkey = Passkey([512], "random", trials=6).evaluations["passkey"]
    tokenizer = Passkey([512]).tokenizer
    passkey.prepare(tokenizer)
    original, greedy = passkey.prompt, {}

    def answerable(sample):
        """Half of the questions get what the model would say; of these every other with a wrong last token."""
        prompt = original(sample)
        said = module.model.generate(
            torch.from_numpy(prompt.tokens)[None],
            len(prompt.answer),
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )[0, len(prompt.tokens) :].numpy()
        greedy[sample.trial] = said
        wrong = [prompt.answer, said, np.append(said[:-1], (said[-1] + 1) % 256)][sample.trial % 3]
        return prompt._replace(answer=wrong)

    monkeypatch.setattr(passkey, "prompt", answerable)
    batches = passkey.batches("passkey", tokenizer, 1)
    for index in range(len(batches)):
        batch = batches[index]
        with torch.no_grad():
            scores = module.test_step(batch)
        answer = batch.targets[0] != IGNORE
        found = bool((scores["token_rank"][0][0][answer] == 0).all())
        trial = passkey.samples[int(batch.documents[0])].trial
        assert found == np.array_equal(batch.targets[0][answer].numpy(), greedy[trial]) == (trial % 3 == 1)
        assert math.isfinite(float(scores["token_nll"][0].sum()))


def test_the_command_line_maps_keys_beside_curves(tmp_path: Path, tiny: list[str]) -> None:
    words = [word for word in tiny if "evaluations" not in word]
    evaluations = (
        "{keys: {class_path: Passkey, init_args: {context_lengths: [400, 450], mode: grid, depths: 3, trials: 2,"
        " batch_size: 4, every_n_steps: 2}}}"
    )
    words += [f"--data.evaluations={evaluations}", f"--trainer.default_root_dir={tmp_path}"]
    LitPiCLI(["fit", *words, "--trainer.max_steps=4", "--trainer.val_check_interval=1"])
    LitPiCLI(["test", *words, "--ckpt_path=last", "--trainer.limit_test_batches=2"])
    records = json.loads((tmp_path / "results.json").read_text())["records"]
    assert [(record["kind"], record["stage"], record["step"]) for record in records] == [
        ("passkey", "fit", 2), ("passkey", "fit", 4), ("passkey", "test", 0),
    ]  # fmt: skip
    assert [record["partial"] for record in records] == [False, False, True]
    assert sum(cell["questions"] for cell in records[0]["cells"]) == 12
    assert (tmp_path / "figures" / "keys-passkey.png").exists()
