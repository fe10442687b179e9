"""Answers as a user finds them: equal to stock transformers, one option at a time, without batches or padding."""

import json
import socket
from collections import Counter
from copy import deepcopy
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from transformers import LlamaForCausalLM

from lit_pi.callbacks import Measurements
from lit_pi.cli import LitPiCLI
from lit_pi.data.corpora import TextFiles
from lit_pi.datamodules import LongContextData
from lit_pi.evaluations import MultipleChoice
from lit_pi.evaluations.choices.paired import paired_differences
from lit_pi.evaluations.choices.scores import ChoiceScores
from lit_pi.evaluations.choices.tasks import PIQA, RACE, BoolQ, Task, WinoGrande
from lit_pi.models import FromScratch
from lit_pi.module import LitLlama
from lit_pi.positions import DynamicNTK, Extrapolate, Interpolate, PositionStrategy

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:Total length of `DataLoader`")

TINY: dict[str, Any] = {
    "vocab_size": 264, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip
BOS = 256
ARTICLE = "Tom had cats. " * 3

# For each task its records, and for each question what is compared, written out once more: contexts, options, what
# stands before an option alone, and the right one.
RECORDS: dict[type[Task], list[dict[str, Any]]] = {
    BoolQ: [
        {"passage": f"Ice {number} on café. " * (1 + number % 3), "question": "is it so", "answer": number % 3 > 0}
        for number in range(9)
    ],
    PIQA: [
        {"goal": f"Open {number}", "sol1": "Turn 日本 it." * (1 + number % 3),
         "sol2": f"Push {'the lid' * (number % 4)}", "label": number % 2}
        for number in range(9)
    ],
    RACE: [
        {"article": ARTICLE + str(number), "questions": ["Who had?", "Cats are _ ."],
         "options": [["Tom", f"Bo{number}", "The grey one, naïvely", "🙂🙂"],
                     ["grey", "b", "très bien", "of many colours"]],
         "answers": ["ABCD"[number % 4], "B"]}
        for number in range(5)
    ],
    WinoGrande: [
        {"sentence": f"Ann {number} left Bo as _ was {'very ' * (number % 3)}late.", "option1": "Ann", "option2": "Bo",
         "answer": str(1 + number % 2)}
        for number in range(9)
    ],
}  # fmt: skip


def asked(task: type[Task]) -> list[tuple[list[str], list[str], str | None, int]]:
    found: list[tuple[list[str], list[str], str | None, int]] = []
    for record in RECORDS[task]:
        if task is BoolQ:
            context = f"{record['passage'].strip()}\nQuestion: {record['question']}?\nAnswer:"
            found.append(([context] * 2, [" no", " yes"], "Answer:", int(record["answer"])))
        elif task is PIQA:
            context = f"Question: {record['goal']}\nAnswer:"
            found.append(
                ([context] * 2, [f" {record[key].strip()}" for key in ("sol1", "sol2")], None, record["label"])
            )
        elif task is WinoGrande:
            before, after = record["sentence"].split("_")
            contexts = [before + record["option1"], before + record["option2"]]
            found.append((contexts, [after] * 2, None, int(record["answer"]) - 1))
        else:
            for question, options, answer in zip(
                record["questions"], record["options"], record["answers"], strict=True
            ):
                context = f"Article:\n{record['article']}\n\nQ: {question}\n\nA:"
                found.append(([context] * 4, [f" {option}" for option in options], "A:", "ABCD".index(answer)))
    return found


def data(folder: Path, *tasks: type[Task], **options: Any) -> LongContextData:
    evaluations = {}
    for task in tasks:
        path = folder / f"{task.__name__}.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS[task]))
        evaluations[task.__name__.lower()] = MultipleChoice(task(files=str(path)), **{"batch_tokens": 700, **options})
    return LongContextData(None, evaluations)


def trainer(run: Path, **kwargs: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", devices=1, enable_model_summary=False, enable_progress_bar=False, default_root_dir=run,
        callbacks=[Measurements()], enable_checkpointing=False, **{"logger": False, **kwargs},
    )  # fmt: skip


def module(position: PositionStrategy | None = None, kind: type[LitLlama] = LitLlama) -> LitLlama:
    torch.manual_seed(0)
    return kind(FromScratch(config=TINY), position or Extrapolate())


def records(run: Path) -> dict[str, dict[str, Any]]:
    return {record["evaluation"]: record for record in json.loads((run / "results.json").read_text())["records"]}


def stock(model: LitLlama) -> LlamaForCausalLM:
    """The same weights in a model of transformers, with the strategy in transformers' own words."""
    config = deepcopy(model.model.llm.config)
    config.rope_parameters = model.position.rope_parameters(model.rope)
    found = LlamaForCausalLM(config).eval()
    found.load_state_dict(model.model.llm.state_dict())
    return found


def log_likelihood(llm: LlamaForCausalLM, context: str, option: str) -> float:
    ids, scored = [BOS, *(context + option).encode()], len(option.encode())
    with torch.no_grad():
        # A fresh copy: the rotary embedding of a length-dependent type remembers longer rows.
        logits = deepcopy(llm)(torch.tensor([ids]), use_cache=False).logits[0].double()
    steps = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(ids[1:])[:, None])
    return float(steps[-scored:].sum())


def best(scores: list[float]) -> int:
    return scores.index(max(scores))


POSITIONS = [Extrapolate(), Interpolate(4), DynamicNTK(scale=4)]


@pytest.mark.parametrize("task", RECORDS)
def test_scores_and_choices_are_those_of_stock_transformers(task: type[Task], tmp_path: Path) -> None:
    for number, position in enumerate(POSITIONS if task is RACE else POSITIONS[:1]):
        run, model = tmp_path / str(number), module(position)
        run.mkdir()
        trainer(run).test(model, data(run, task), verbose=False)
        record, llm = records(run)[task.__name__.lower()], stock(model)
        rows = pyarrow.parquet.read_table(run / record["table"]).to_pylist()
        questions = asked(task)
        assert len(rows) == len(questions) and len({row["id"] for row in rows}) == len(rows)
        right: Counter[str] = Counter()
        for row, (contexts, options, alone, answer) in zip(rows, questions, strict=True):
            pairs = list(zip(contexts, options, strict=True))
            likely = [log_likelihood(llm, context, option) for context, option in pairs]
            by_itself = [log_likelihood(llm, alone, option) for option in options] if alone else []
            assert row["log_likelihood"] == pytest.approx(likely, rel=1e-5)
            assert row["log_likelihood_alone"] == pytest.approx(by_itself, rel=1e-5)
            bare = [option.strip() for option in options]
            chosen = {
                "none": best(likely),
                "characters": best([score / len(text) for score, text in zip(likely, bare, strict=True)]),
                "bytes": best([score / len(text.encode()) for score, text in zip(likely, bare, strict=True)]),
                "tokens": best([score / len(text.encode()) for score, text in zip(likely, options, strict=True)]),
            }
            if alone:
                gained = [score - other for score, other in zip(likely, by_itself, strict=True)]
                chosen["answer_context"] = best(gained)
            assert {name: row[f"chosen_{name}"] for name in chosen} == chosen
            assert row["answer"] == answer
            assert {name: row[f"correct_{name}"] for name in chosen} == {
                name: option == answer for name, option in chosen.items()
            }
            right.update(name for name, option in chosen.items() if option == answer)
        assert {entry["normalisation"]: (entry["n"], entry["correct"]) for entry in record["accuracies"]} == {
            name: (len(questions), right[name]) for name in chosen
        }


def test_every_question_of_race_counts_though_an_article_has_several(tmp_path: Path) -> None:
    trainer(tmp_path).test(module(), data(tmp_path, RACE), verbose=False)
    record = records(tmp_path)["race"]
    assert (
        {entry["n"] for entry in record["accuracies"]} == {sum(len(own["questions"]) for own in RECORDS[RACE])} == {10}
    )
    assert record["protocol"]["questions"] == 10 and record["protocol"]["normalisation"] == "answer_context"


def test_ranks_batches_and_fillers_do_not_matter(tmp_path: Path) -> None:
    model, modules = module(), data(tmp_path, PIQA)
    trainer(tmp_path).test(model, modules, verbose=False)
    evaluation, found = modules.evaluations["piqa"], []
    for world_size, batch_tokens in ((1, 1), (2, 300), (5, 4096)):
        evaluation.batch_tokens = batch_tokens
        batches = evaluation.batches("piqa", modules.tokenizer, world_size)
        sums = ChoiceScores(evaluation.questions)
        fillers = 0
        for index in range(len(batches)):
            batch = batches[index]
            fillers += int((batch.documents < 0).sum())
            with torch.no_grad():
                (token_nll,) = model.test_step(batch)["token_nll"]
            sums.update(batch.documents, token_nll)
        assert int(sums.scored.sum()) == len(evaluation.rows) and int(sums.scored.max()) == 1
        assert (fillers > 0) == (world_size == 5)
        found.append([option for entry in sums.compute() for option in entry.log_likelihood])
    assert found[1] == pytest.approx(found[0], rel=1e-5) and found[2] == pytest.approx(found[0], rel=1e-5)


def test_record_scalars_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trainer(tmp_path, logger=TensorBoardLogger(tmp_path, name="", version=""))
    run.test(module(Interpolate(4)), data(tmp_path, BoolQ, WinoGrande), verbose=False)
    found = records(tmp_path)
    boolq = found["boolq"]
    assert {key: boolq[key] for key in ("kind", "stage", "step", "partial", "table")} == {
        "kind": "multiple_choice", "stage": "test", "step": 0, "partial": False,
        "table": "questions/boolq-test.parquet",
    }  # fmt: skip
    expected = {
        "task": "BoolQ", "answer_context": "Answer:", "normalisation": "answer_context", "questions": 9, "bos": True,
        "context_length": 2048, "position": {"class": "Interpolate", "scale": 4, "target_context": None},
    }  # fmt: skip
    assert {key: boolq["protocol"][key] for key in expected} == expected
    events = EventAccumulator(str(tmp_path)).Reload()
    said = capsys.readouterr().out
    for name, record in found.items():
        for entry in record["accuracies"]:
            (scalar,) = events.Scalars(f"{name}/accuracy/{entry['normalisation']}")
            assert scalar.value == pytest.approx(entry["accuracy"])
            cell = f"{100 * entry['accuracy']:.1f} ({100 * entry['low']:.1f} to {100 * entry['high']:.1f})"
            usual = entry["normalisation"] == record["protocol"]["normalisation"]
            assert f"{cell}{'†' if usual else ' '}" in said
    assert [entry["normalisation"] for entry in found["winogrande"]["accuracies"]] == [
        "none", "characters", "bytes", "tokens",
    ]  # fmt: skip
    assert "questions: boolq 9" in said and "questions: winogrande" in said and "partial" not in said


def test_a_paired_report_needs_no_rerun(tmp_path: Path) -> None:
    for name, position in (("before", Extrapolate()), ("after", Interpolate(16))):
        (tmp_path / name).mkdir()
        trainer(tmp_path / name).test(module(position), data(tmp_path, RACE), verbose=False)
    found = {entry.normalisation: entry.shares for entry in paired_differences(tmp_path / "before", tmp_path / "after")}
    for entry in records(tmp_path / "after")["race"]["accuracies"]:
        assert found[entry["normalisation"]].other == entry["accuracy"]
    assert any(entry.only_baseline + entry.only_other for entry in found.values())


def test_a_model_of_no_numbers_answers_nothing(tmp_path: Path) -> None:
    class Broken(LitLlama):
        def on_test_start(self) -> None:
            nn.init.constant_(self.model.llm.lm_head.weight, torch.nan)

    trainer(tmp_path).test(module(kind=Broken), data(tmp_path, PIQA), verbose=False)
    assert {entry["correct"] for entry in records(tmp_path)["piqa"]["accuracies"]} == {0}


@pytest.mark.parametrize(("batches", "scored"), [(1, False), (4, True)])
def test_batches_left_out_are_told(
    batches: int, scored: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trainer(tmp_path, limit_test_batches=batches)
    run.test(module(), data(tmp_path, PIQA, batch_tokens=60 if batches == 1 else 200), verbose=False)
    record = records(tmp_path)["piqa"]
    assert record["partial"] and "partial" in capsys.readouterr().out
    assert bool(record["accuracies"]) == bool(record["table"]) == scored
    assert all(0 < entry["n"] < 9 for entry in record["accuracies"])


def test_training_measures_when_due_and_keeps_a_table_for_each_step(tmp_path: Path, texts: Path) -> None:
    module_ = data(tmp_path, PIQA, every_n_steps=2, max_questions=4)
    corpus = TextFiles(train=str(texts / "train"))
    run = trainer(tmp_path, max_steps=4, val_check_interval=1, num_sanity_val_steps=2)
    run.fit(module(), LongContextData(corpus, module_.evaluations, context_length=64))
    found = json.loads((tmp_path / "results.json").read_text())["records"]
    tables = [f"questions/piqa-fit-{step:06d}.parquet" for step in (2, 4)]
    assert [(record["stage"], record["step"], record["table"]) for record in found] == [
        ("fit", step, table) for step, table in zip((2, 4), tables, strict=True)
    ]
    assert {entry["n"] for record in found for entry in record["accuracies"]} == {4}
    assert sorted(path.name for path in (tmp_path / "questions").iterdir()) == [Path(table).name for table in tables]


@pytest.mark.filterwarnings("ignore:.*:jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_the_command_line_from_end_to_end_without_network(
    tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("opened a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    data(tmp_path, *RECORDS)
    words = [word for word in tiny if not word.startswith("--data.evaluations")]
    evaluations = ", ".join(
        f"{task.__name__}: {{class_path: MultipleChoice, init_args: {{task: {{class_path: {task.__name__}, init_args: "
        f"{{files: {tmp_path / task.__name__}.jsonl}}}}}}}}"
        for task in RECORDS
    )
    run = tmp_path / "run"
    LitPiCLI(["test", *words, f"--data.evaluations={{{evaluations}}}", f"--trainer.default_root_dir={run}"])
    counts = {name: record["accuracies"][0]["n"] for name, record in records(run).items()}
    assert counts == {"BoolQ": 9, "PIQA": 9, "RACE": 10, "WinoGrande": 9}
