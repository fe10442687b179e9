"""Prompts of unequal lengths in one batch, against each prompt alone and against full forwards without a cache."""

import pytest
import torch
from prompts import batch_of
from strategies import IN_MODELS
from transformers import AutoModelForCausalLM, LlamaConfig, TemperatureLogitsWarper, TopPLogitsWarper
from windowed import windowed

from lit_pi.batches import Decoding, Generated, GenerationBatch
from lit_pi.models import LanguageModel
from lit_pi.models.attention.attend import ATTENTION
from lit_pi.models.decoding.generation import choose, generate
from lit_pi.models.past import Past
from lit_pi.models.sources.provenance import rope_of
from lit_pi.positions import DynamicNTK, Extrapolate, FromConfig, PositionStrategy, Rope, SelfExtend

# Weights so large that tokens far away decide what comes next.
TINY = LlamaConfig(
    vocab_size=97, hidden_size=128, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=1, max_position_embeddings=64, initializer_range=0.3,
)  # fmt: skip
LENGTHS, NEW = (70, 5, 52), 12
PROMPTS = [torch.randint(0, 97, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in LENGTHS]


def model_of(position: PositionStrategy) -> LanguageModel:
    torch.manual_seed(0)
    llm = AutoModelForCausalLM.from_config(TINY, attn_implementation=ATTENTION)
    return LanguageModel(llm.double().eval(), position, Rope(64, 1e4, 64))


def full_forwards(model: LanguageModel, prompt: list[int], new: int) -> list[int]:
    """The likeliest tokens, each by a pass over everything before it."""
    ids = list(prompt)
    for _ in range(new):
        model.rotary.context_length = len(prompt) + new
        with torch.no_grad():
            logits = model.llm(torch.tensor([ids]), use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("position", IN_MODELS.values(), ids=IN_MODELS)
def test_each_prompt_goes_on_as_it_does_alone(position: PositionStrategy) -> None:
    model = model_of(position)
    found = generate(model, batch_of(PROMPTS, NEW)).token_ids.tolist()
    assert found == [full_forwards(model, prompt, NEW) for prompt in PROMPTS]
    assert found == [generate(model, batch_of([prompt], NEW)).token_ids[0].tolist() for prompt in PROMPTS]


@pytest.mark.parametrize("name", ["mistral", "gemma3"])
def test_windows_are_those_of_full_forwards_of_stock_transformers(name: str) -> None:
    """Prompts beyond several windows, and of unequal lengths."""
    llm = windowed(name).double()
    llm.set_attn_implementation(ATTENTION)
    model = LanguageModel(llm, FromConfig(), rope_of(llm.config))
    found = generate(model, batch_of(PROMPTS, NEW)).token_ids.tolist()
    stock = windowed(name).double()
    for prompt, row in zip(PROMPTS, found, strict=True):
        with torch.no_grad():
            logits = stock(torch.tensor([prompt + row]), use_cache=False).logits[0]
        assert logits[len(prompt) - 1 : -1].argmax(-1).tolist() == row


@pytest.mark.parametrize("position", IN_MODELS.values(), ids=IN_MODELS)
@pytest.mark.parametrize("chunk", [1, 7])
def test_what_is_read_in_chunks_has_the_logits_of_one_pass(position: PositionStrategy, chunk: int) -> None:
    model = model_of(position)
    tokens = torch.randint(0, 97, (2, 60), generator=torch.Generator().manual_seed(1))
    shorter = 33  # of 40 tokens before the chunks
    past = Past(torch.tensor([40, shorter]), 40, 20, context_length=80)
    with torch.no_grad():
        model.read(tokens[:, :40], past)
        read = torch.cat([model.read(part, past) for part in tokens[:, 40:].split(chunk, dim=1)], dim=1)
        model.rotary.context_length = 80
        whole = model.llm(tokens[:1], use_cache=False).logits[0, 40:]
        without_padding = torch.cat((tokens[1:, :shorter], tokens[1:, 40:]), dim=1)
        padded = model.llm(without_padding, use_cache=False).logits[0, shorter:]
    torch.testing.assert_close(read, torch.stack((whole, padded)), rtol=0, atol=1e-5)


def test_a_strategy_whose_angles_follow_the_length_has_them_of_each_prompt_alone() -> None:
    """The angles of the longest row would be wrong for the others, and are another text."""
    model = model_of(DynamicNTK(4))
    wrong = batch_of(PROMPTS, NEW)._replace(context_lengths=torch.full((3,), 82))
    right = generate(model, batch_of(PROMPTS, NEW)).token_ids
    assert generate(model, wrong).token_ids[2].tolist() != right[2].tolist()


def test_a_text_ends_at_a_stop_token_and_other_rows_go_on() -> None:
    model = model_of(Extrapolate())
    free = generate(model, batch_of(PROMPTS, NEW))
    assert free.lengths.tolist() == [NEW] * 3 and not free.stopped.any()
    stop = int(free.token_ids[1, 4])
    first = [row.index(stop) if stop in row else None for row in free.token_ids.tolist()]
    assert None in first and first[1] is not None
    found = generate(model, batch_of(PROMPTS, NEW, stop_ids=(stop, 98)))
    for row, end in enumerate(first):
        assert found.stopped[row] == (end is not None)
        length = NEW if end is None else end
        assert int(found.lengths[row]) == length
        assert found.token_ids[row].tolist() == free.token_ids[row, :length].tolist() + [0] * (NEW - length)


def test_rows_that_only_fill_up_cost_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model, read, reads = model_of(Extrapolate()), LanguageModel.read, []
    monkeypatch.setattr(LanguageModel, "read", lambda self, *args: reads.append(1) or read(self, *args))
    generate(model, batch_of(PROMPTS, NEW)._replace(documents=torch.tensor([-1, -1, -1])))
    assert len(reads) == 1


@pytest.mark.parametrize("position", [Extrapolate(), DynamicNTK(4), SelfExtend(4, 16)], ids=type)
def test_a_sample_depends_neither_on_its_batch_nor_on_its_place(position: PositionStrategy) -> None:
    model = model_of(position)
    batch = batch_of(PROMPTS, NEW, temperature=0.7, top_p=0.9)
    together = generate(model, batch).token_ids
    order = [2, 0, 1]
    turned = generate(model, rows_of(batch, order)).token_ids
    assert torch.equal(turned, together[order])
    for row in range(3):
        assert torch.equal(generate(model, rows_of(batch, [row])).token_ids[0], together[row])
    other = batch._replace(draws=batch.draws.flip(0))
    assert not torch.equal(generate(model, other).token_ids, together)


def rows_of(batch: GenerationBatch, rows: list[int]) -> GenerationBatch:
    own = {name: getattr(batch, name)[rows] for name in ("lengths", "context_lengths", "documents", "draws")}
    return batch._replace(input_ids=batch.input_ids[rows, : int(batch.lengths[rows].max())], **own)


def test_samples_have_the_probabilities_that_temperature_and_top_p_leave() -> None:
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(0))
    draws = (torch.arange(20_000) + 0.5) / 20_000
    tokens = choose(logits.expand(20_000, -1), Decoding(1, temperature=1.5, top_p=0.8), draws)
    frequencies = tokens.bincount(minlength=50) / 20_000
    warm = (logits[0] / 1.5).softmax(-1)
    order = warm.argsort(descending=True).tolist()
    kept = order[: next(n for n in range(1, 51) if warm[order[:n]].sum() >= 0.8)]
    expected = torch.zeros(50)
    expected[kept] = warm[kept] / warm[kept].sum()
    torch.testing.assert_close(frequencies, expected, rtol=0, atol=2e-4)
    assert 5 < len(kept) < 40
    stock = TopPLogitsWarper(0.8)(None, TemperatureLogitsWarper(1.5)(None, logits)).softmax(-1)[0]
    torch.testing.assert_close(frequencies, stock, rtol=0, atol=2e-4)
    extremes = choose(logits.expand(2, -1), Decoding(1, temperature=1.5, top_p=0.8), torch.tensor([0, 1 - 2**-24]))
    assert set(extremes.tolist()) <= set(kept)


def test_ranks_with_fewer_groups_or_shorter_texts_run_as_many_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """As sharded ranks must: two ranks in step, one of which has three context lengths and long texts."""
    model, read, reads = model_of(DynamicNTK(4)), LanguageModel.read, []
    monkeypatch.setattr(LanguageModel, "read", lambda self, *args: reads.append(1) or read(self, *args))
    flags: list[bool] = []
    busy = generate(model, batch_of(PROMPTS, NEW), anyone=lambda flag: flags.append(flag) or flag)
    assert len(reads) == 3 * NEW
    reads.clear()
    stop = int(busy.token_ids[1, 0])
    others = iter(flags)
    idle = batch_of([PROMPTS[1]], NEW, stop_ids=(stop,))
    found = generate(model, idle, anyone=lambda flag: next(others) or flag)
    assert len(reads) == 3 * NEW and next(others, None) is None
    assert (found.lengths.tolist(), found.stopped.tolist()) == ([0], [True])
    assert isinstance(found, Generated)
