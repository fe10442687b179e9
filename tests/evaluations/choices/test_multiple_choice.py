"""Rows of options: written as a whole, scored from the right token on, and dealt out to ranks evenly."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lit_pi.batches import IGNORE, ScoringBatch, Span
from lit_pi.data.tokenizer import load_tokenizer
from lit_pi.errors import UserError
from lit_pi.evaluations import MultipleChoice
from lit_pi.evaluations.choices.tasks import PIQA, RACE, BoolQ, Question, Task, WinoGrande

QUESTIONS = [
    Question("a", ("Question: Open a jar\nAnswer:",) * 2, (" Push the lid.", " Turn the lid, naïvely."), 1),
    Question("b", ("Bo said that Ann", "Bo said that Bo"), (" was late.",) * 2, 0),
    Question("c", ("A cat <s> is\nAnswer:",) * 3, (" yes", " no", " Turn"), 2),
    Question("d", ("Answer:",) * 2, (" yes", " no"), 0),
]
TEXTS = [context + option for question in QUESTIONS for context, option in zip(*question[1:3], strict=True)] * 5


class Given(Task):
    """Questions as they are."""

    prompt = "{context}"
    answer_context = "Answer:"
    normalisation = "none"
    bring = "bring some"

    def __init__(self, questions: list[Question], answer_context: str | None = "Answer:") -> None:
        super().__init__("nowhere")
        self.given = questions
        self.answer_context = answer_context  # type: ignore[misc]

    def questions(self) -> list[Question]:
        return self.given

    def _questions(self, record: Any) -> Iterator[Question]:
        raise AssertionError


def words(bos: str | None) -> PreTrainedTokenizerFast:
    """Words with the space before them, as most tokenizers write them."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="never")
    backend.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>", "<s>"], show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, unk_token="<unk>")


def merging() -> PreTrainedTokenizerFast:
    """No pre-tokenizer, as SentencePiece for LLaMA, so that merges cross words: `: y` is one token, `: n` are three."""
    letters = sorted({letter for text in TEXTS for letter in text.replace(" ", "▁")} | {"▁"})
    vocab = {token: place for place, token in enumerate(["<unk>", "<s>", *letters, "▁y", ":▁y"])}
    backend = Tokenizer(models.BPE(vocab, [("▁", "y"), (":", "▁y")], unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="<unk>")


TOKENIZERS = {
    "bytes": lambda: load_tokenizer("bytes"),
    "words": lambda: words("<s>"),
    "no bos": lambda: words(None),
    "merging": merging,
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return TOKENIZERS[request.param]()


def prepared(task: Task, tokenizer: PreTrainedTokenizerFast, **options: Any) -> MultipleChoice:
    evaluation = MultipleChoice(task, **options)
    evaluation.prepare(tokenizer)
    return evaluation


def encoded(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return bos + tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids


def common(one: list[int], other: list[int]) -> int:
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return length


def test_a_row_is_the_whole_text_scored_from_where_the_option_begins(tokenizer: PreTrainedTokenizerFast) -> None:
    evaluation = prepared(Given(QUESTIONS), tokenizer)
    for given, question in zip(QUESTIONS, evaluation.questions, strict=True):
        assert (question.id, question.answer) == (given.id, given.answer)
        for contexts, rows in ((given.contexts, question.rows), (("Answer:",) * len(given.options), question.alone)):
            for number, (context, option) in enumerate(zip(contexts, given.options, strict=True)):
                row = evaluation.rows[rows[number]]
                assert row.tokens.tolist() == encoded(tokenizer, context + option)
                siblings = [
                    common(encoded(tokenizer, context), encoded(tokenizer, context + other))
                    for own, other in zip(contexts, given.options, strict=True)
                    if own == context
                ]
                assert row.start == min(siblings) > 0
        assert question.tokens == tuple(
            len(evaluation.rows[row].tokens) - evaluation.rows[row].start for row in question.rows
        )


def test_a_token_across_the_boundary_is_scored_whole_for_every_option() -> None:
    tokenizer = merging()
    evaluation = prepared(Given(QUESTIONS), tokenizer)

    def scored(question: int) -> list[str]:
        rows = [evaluation.rows[row] for row in evaluation.questions[question].rows]
        return [" ".join(tokenizer.convert_ids_to_tokens(row.tokens[row.start :].tolist())) for row in rows]

    # Were " no" scored from its space on, "Answer:" would count for " yes" only.
    assert scored(3) == [":▁y e s", ": ▁ n o"]
    assert scored(0) == [" ".join("▁Push▁the▁lid."), " ".join("▁Turn▁the▁lid,▁naïvely.")]
    # Contexts of their own are each split where they end.
    assert scored(1) == [" ".join("▁was▁late.")] * 2


def test_other_tokenizers_score_the_option_and_no_more() -> None:
    for tokenizer in (words("<s>"), words(None), load_tokenizer("bytes")):
        evaluation = prepared(Given(QUESTIONS), tokenizer)
        for given, question in zip(QUESTIONS, evaluation.questions, strict=True):
            for option, row in zip(given.options, question.rows, strict=True):
                tokens, start = evaluation.rows[row]
                assert tokenizer.decode(tokens[start:].tolist()) == option


def test_characters_and_bytes_are_of_the_option_without_its_space() -> None:
    options = (" naïve", " 日本語", " 🙂", " plain")
    question = Question("q", ("Which?",) * 4, options, 0)
    (found,) = prepared(Given([question]), load_tokenizer("bytes")).questions
    assert found.characters == (5, 3, 1, 5)
    assert found.bytes == (6, 9, 4, 5)
    assert found.tokens == (7, 10, 5, 6)  # a byte each, and the space


def test_what_is_scored_twice_has_one_row() -> None:
    evaluation = prepared(Given(QUESTIONS), load_tokenizer("bytes"))
    last, third = evaluation.questions[3], evaluation.questions[2]
    assert last.rows == last.alone == third.alone[:2]
    assert len(evaluation.rows) == (2 + 2 + 3 + 2) + (2 + 1 + 1)
    splits = [Question("s", ("A:", "A: so"), (" so it is", " it is"), 0)]
    whole, end = prepared(Given(splits, None), load_tokenizer("bytes")).rows
    assert whole.tokens.tolist() == end.tokens.tolist() and (whole.start, end.start) == (3, 6)
    without = prepared(Given(QUESTIONS, None), load_tokenizer("bytes"))
    assert {question.alone for question in without.questions} == {()}
    assert len(without.rows) == 2 + 2 + 3 + 2


def long_and_short(count: int) -> list[Question]:
    return [
        Question(f"q{n}", ("why " * (1 + 7 * n % 40) + "\nAnswer:",) * 2, (" because", " just so" * (1 + n % 5)), n % 2)
        for n in range(count)
    ]


def all_batches(evaluation: MultipleChoice, world_size: int) -> list[ScoringBatch]:
    batches = evaluation.batches("choices", load_tokenizer("bytes"), world_size)
    return [batches[index] for index in range(len(batches))]


@pytest.mark.parametrize("batch_tokens", [1, 300, 5000])
@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_every_row_is_scored_once_and_ranks_run_equal_forwards(world_size: int, batch_tokens: int) -> None:
    evaluation = prepared(Given(long_and_short(23)), load_tokenizer("bytes"), batch_tokens=batch_tokens)
    batches = all_batches(evaluation, world_size)
    assert len(batches) % world_size == 0
    seen, padded_lengths = [], []
    for batch in batches:
        rows, length = batch.input_ids.shape
        assert rows == 1 or rows * length <= batch_tokens
        assert batch.evaluation == "choices" and not batch.ranked and len(batch.spans) == 1
        assert batch.spans[0] == Span(2048, 0, len(batch.scored))
        padded_lengths.append(length)
        for place, number in enumerate(batch.documents.tolist()):
            targets, own = batch.targets[place], int(batch.lengths[place])
            if number < 0:
                assert (targets == IGNORE).all() and own == 1
                continue
            seen.append(number)
            row = evaluation.rows[number]
            assert batch.input_ids[place, :own].tolist() == row.tokens.tolist()
            assert not batch.input_ids[place, own:].any()
            positions = batch.scored[targets != IGNORE]
            assert positions.tolist() == list(range(row.start - 1, len(row.tokens) - 1))
            assert targets[targets != IGNORE].tolist() == row.tokens[row.start :].tolist()
    assert sorted(seen) == list(range(len(evaluation.rows)))
    assert padded_lengths == sorted(padded_lengths, reverse=True)
    for start in range(0, len(batches), world_size):
        together = batches[start : start + world_size]
        assert (
            len({(tuple(b.input_ids.shape), tuple(b.scored.tolist()), tuple(b.targets.shape)) for b in together}) == 1
        )
    if batch_tokens == 300:
        padding = sum(b.input_ids.numel() - int(b.lengths[b.documents >= 0].sum()) for b in batches)
        assert padding < 0.25 * sum(len(row.tokens) for row in evaluation.rows) or world_size == 5


def test_a_question_that_does_not_fit_is_refused_by_its_name() -> None:
    questions, tokenizer = long_and_short(23), load_tokenizer("bytes")
    sizes = {
        q.id: 1 + max(len((c + o).encode()) for c, o in zip(q.contexts, q.options, strict=True)) for q in questions
    }
    longest = max(sizes, key=sizes.__getitem__)
    evaluation = prepared(Given(questions), tokenizer, context_length=sizes[longest])
    assert evaluation.describe()["longest_row"] == sizes[longest]
    with pytest.raises(UserError, match=rf"question {longest} of Given takes {sizes[longest]} tokens, and \d of 23 "):
        prepared(Given(questions), tokenizer, context_length=sizes[longest] - 1)
    with pytest.raises(UserError, match=rf"{longest} .* 23 of 23 .* none is ever cut: .* to {sizes[longest]} or more"):
        prepared(Given(questions), tokenizer, context_length=3)


def test_an_option_without_a_token_to_score_is_refused() -> None:
    # Without a token for what it does not know, it writes nothing.
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0, "b": 1}, [])))
    question = Question("q", ("a",) * 2, (" b", " so"), 0)
    with pytest.raises(UserError, match="leaves no token after the context of question q, option 'so'"):
        prepared(Given([question], None), tokenizer)
    with pytest.raises(UserError, match="leaves no token before the context of question q, option 'b'"):
        prepared(Given([question._replace(contexts=("?",) * 2)], None), tokenizer)


def test_what_calls_of_the_tokenizer_left_behind_cuts_nothing() -> None:
    tokenizer = load_tokenizer("bytes")
    tokenizer("a longer text than that", truncation=True, max_length=3)
    found = prepared(Given(QUESTIONS), tokenizer)
    for row, expected in zip(found.rows, prepared(Given(QUESTIONS), load_tokenizer("bytes")).rows, strict=True):
        assert row.tokens.tolist() == expected.tokens.tolist() and row.start == expected.start


def test_a_choice_of_questions_is_seeded_and_told() -> None:
    def ids(**options: Any) -> list[str]:
        return [question.id for question in prepared(Given(long_and_short(40)), tokenizer, **options).questions]

    tokenizer = load_tokenizer("bytes")
    assert ids() == [f"q{n}" for n in range(40)] == ids(max_questions=99)
    few = ids(max_questions=10)
    assert len(set(few)) == 10 and few == ids(max_questions=10) != ids(max_questions=10, seed=1)
    assert set(few) < set(ids(max_questions=20)) and few == sorted(few, key=lambda name: int(name[1:]))
    told = prepared(Given(long_and_short(40)), tokenizer, max_questions=10).describe()
    assert (told["questions"], told["questions_left_out"]) == (10, 30)


def test_the_protocol_tells_questions_apart(tmp_path: Path) -> None:
    def fingerprint(questions: list[Question], tokenizer: str = "bytes") -> str:
        return prepared(Given(questions), load_tokenizer(tokenizer)).describe()["questions_fingerprint"]

    expected = fingerprint(QUESTIONS)
    assert fingerprint(list(QUESTIONS)) == expected
    for change in ({"id": "z"}, {"answer": 0}, {"options": (" a", " b")}, {"contexts": ("x",) * 2}):
        assert fingerprint([QUESTIONS[0]._replace(**change), *QUESTIONS[1:]]) != expected
    for task in (BoolQ(), PIQA(), RACE(), WinoGrande()):
        json.dumps(MultipleChoice(task).describe())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context_length": 0}, "context_length of MultipleChoice is 0: it must be 1 or more"),
        ({"batch_tokens": 0}, "batch_tokens .* is 0"),
        ({"max_questions": 0}, "max_questions .* is 0"),
        ({"seed": -1}, "seed .* is -1: it must be 0 or more"),
    ],
)
def test_options_below_their_least_value_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MultipleChoice(PIQA(), **options)
