"""`lit-pi predict`: what it writes, against each prompt continued alone; and what a run that fails leaves."""

import json
import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from prompts import batch_of

from lit_pi.batches import Generated, GenerationBatch
from lit_pi.cli import LitPiCLI
from lit_pi.data.tokenizer import load_tokenizer
from lit_pi.errors import UserError
from lit_pi.models.decoding.generation import generate
from lit_pi.module import LitLlama

pytestmark = pytest.mark.filterwarnings("ignore")
NEW = 8


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> NoReturn:
        raise AssertionError("nothing here needs the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def questions(tmp_path: Path) -> list[str]:
    """Five prompts: two files, and three lines of another one, with letters of several bytes and a line's end."""
    found = ["It was the best of times,\n", "naïve " * 30, "Once upon a time ", "the", "é" * 40]
    (tmp_path / "a.txt").write_text(found[0])
    (tmp_path / "b.txt").write_text(found[1])
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"question": text}) + "\n" for text in found[2:]))
    return found


@pytest.fixture
def words(tiny: list[str], tmp_path: Path, questions: list[str]) -> list[str]:
    files = [str(tmp_path / name) for name in ("a.txt", "b.txt", "c.jsonl")]
    return [
        *(word for word in tiny if not word.startswith(("--data", "--model.position"))),
        "--model.position=DynamicNTK", "--model.position.scale=4", "--data.predict=Prompts",
        f"--data.predict.files={json.dumps(files)}", "--data.predict.text_field=question",
        f"--data.predict.max_new_tokens={NEW}",
    ]  # fmt: skip


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]


def test_each_prompt_is_continued_as_it_stands(
    words: list[str], questions: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    cli = LitPiCLI(["predict", *words, "--data.predict.batch_size=2", f"--trainer.default_root_dir={run}"])
    tokenizer, found = load_tokenizer("bytes"), lines(run)
    assert [line["id"] for line in found] == ["a.txt", "b.txt", "c.jsonl:1", "c.jsonl:2", "c.jsonl:3"]
    for text, line in zip(questions, found, strict=True):
        prompt = [256, *text.encode()]
        greedy = generate(cli.model.model, batch_of([prompt], NEW, stop_ids=(257,)))
        new = greedy.token_ids[0, : int(greedy.lengths)].tolist()
        assert line["completion"] == tokenizer.decode(new, skip_special_tokens=True)
        assert (line["prompt_tokens"], line["completion_tokens"]) == (len(prompt), len(new))
        assert line["finish_reason"] == ("stop" if greedy.stopped else "length")
        assert line["strategy"] == {"class": "DynamicNTK", "scale": 4, "target_context": None}
        assert line["seed"] == 0
    said = capsys.readouterr().out
    assert "Continuing 5 prompts of up to 211 tokens by up to 8, greedily, with {'class': 'DynamicNTK'" in said
    assert not list(run.glob("predictions.rank-*"))


def test_samples_follow_from_the_seed_and_not_from_the_batch(words: list[str], tmp_path: Path) -> None:
    sampled = [*words, "--data.predict.temperature=1", "--data.predict.top_p=0.9"]
    found = {}
    for seed, batch_size in ((0, 1), (0, 5), (1, 5)):
        run = tmp_path / f"{seed}-{batch_size}"
        options = [f"--data.predict.seed={seed}", f"--data.predict.batch_size={batch_size}"]
        LitPiCLI(["predict", *sampled, *options, f"--trainer.default_root_dir={run}"])
        found[seed, batch_size] = lines(run)
    assert found[0, 1] == found[0, 5]
    assert [line["completion"] for line in found[0, 5]] != [line["completion"] for line in found[1, 5]]
    assert {line["seed"] for line in found[1, 5]} == {1}


def test_a_text_ends_where_the_model_ends_it(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(self: LitLlama, batch: GenerationBatch, *indices: int) -> Generated:
        assert list(batch.decoding.stop_ids) == [257]
        tokens = torch.tensor([[*b"fine", 0, 0, 0, 0]] * len(batch.lengths))
        return Generated(tokens, torch.full_like(batch.lengths, 4), torch.ones_like(batch.lengths).bool())

    monkeypatch.setattr(LitLlama, "predict_step", answer)
    LitPiCLI(["predict", *words, f"--trainer.default_root_dir={tmp_path}"])
    assert {(line["completion"], line["finish_reason"]) for line in lines(tmp_path)} == {("fine", "stop")}


def test_a_run_that_fails_leaves_whole_lines_and_the_next_one_starts_afresh(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = LitLlama.predict_step

    def fail_at_the_third(self: LitLlama, batch: GenerationBatch, index: int) -> Generated:
        if index == 2:
            raise RuntimeError("out of memory")
        return step(self, batch, index)

    run = ["predict", *words, f"--trainer.default_root_dir={tmp_path}"]
    monkeypatch.setattr(LitLlama, "predict_step", fail_at_the_third)
    with pytest.raises(RuntimeError, match="out of memory"):
        LitPiCLI(run)
    (part,) = tmp_path.glob("predictions*")
    done = [json.loads(line) for line in part.read_text().splitlines()]
    assert [line["id"] for line in done] == ["b.txt", "c.jsonl:3"]  # the longest first
    monkeypatch.setattr(LitLlama, "predict_step", step)
    (tmp_path / "predictions.rank-7.jsonl").write_text("of a run on more devices")
    LitPiCLI(run)
    assert [line["index"] for line in lines(tmp_path)] == [0, 1, 2, 3, 4]
    assert all(line in lines(tmp_path) for line in done)
    assert [path.name for path in tmp_path.glob("predictions*")] == ["predictions.jsonl"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--data.predict=null"], "there is nothing to continue: name prompts in `data.predict`"),
        (["--data.predict.text_field=prompt"], "c.jsonl, line 1, has no field 'prompt'"),
        (["--data.predict.files=nowhere/*.txt"], "no files match 'nowhere/"),
        (["--data.predict.top_p=0"], "top_p of Prompts is 0.0: it must be above 0 and at most 1"),
        (["--data.predict.batch_size=0"], "batch_size of Prompts is 0: it must be 1 or more"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(words: list[str], options: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises((UserError, ValueError)) as caught:
        LitPiCLI(["predict", *words, *options, f"--trainer.default_root_dir={tmp_path}"])
    assert sentence in str(caught.value)
