"""Every token is scored once for each context length, with the context that the definition gives it."""

import itertools

import numpy as np
import pytest
import torch

from lit_pi.batches import IGNORE
from lit_pi.errors import UserError
from lit_pi.evaluations.perplexity.perplexity import WindowBatches
from lit_pi.evaluations.perplexity.windows import Bos, Shape, Window, WindowPlan, plan_batches

BOS_ID = 1000
Scored = dict[tuple[int, int], tuple[int, ...]]
"""For each scored token, by (document, place): the tokens that the model sees before it."""


class Documents:
    """Documents whose token at place t is t, as far as `WindowBatches` asks a store."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def document(self, index: int) -> np.ndarray:
        return np.arange(self.lengths[index])


def by_definition(lengths: list[int], context_length: int, stride: int, bos: Bos) -> Scored:
    """Windows one after another, each scoring what the one before it did not hold."""
    scored: Scored = {}
    for document, total in enumerate(lengths):
        scored_to, begin = 0, 0
        while scored_to < total:
            prefix = [BOS_ID] if bos == "every" or (bos == "first" and begin == 0) else []
            end = min(begin + context_length - len(prefix), total)
            for token in range(scored_to, end):
                context = (*prefix, *range(begin, token))
                if context:
                    scored[document, token] = context
            scored_to, begin = end, begin + stride
    return scored


def by_plan(
    lengths: list[int], context_lengths: list[int], stride: int, bos: Bos, batch_size: int, world_size: int
) -> dict[int, Scored]:
    """The same, read off the batches of all ranks."""
    planned = plan_batches(WindowPlan(context_lengths, stride, bos).group(lengths), batch_size, world_size)
    batches = WindowBatches("x", Documents(lengths), np.arange(len(lengths)), np.array(lengths), BOS_ID, planned)
    assert len(batches) % world_size == 0
    found: dict[int, Scored] = {length: {} for length in context_lengths}
    for start in range(0, len(batches), world_size):
        together = [batches[start + rank] for rank in range(world_size)]
        assert len({(batch.input_ids.shape, batch.spans, tuple(batch.scored.tolist())) for batch in together}) == 1
        for batch, span in itertools.product(together, together[0].spans):
            for row, document in enumerate(batch.documents.tolist()):
                for place in range(span.start, span.stop):
                    if (target := int(batch.targets[row, place])) == IGNORE:
                        continue
                    position = int(batch.scored[place])
                    assert position < batch.lengths[row] and position < span.context_length - 1
                    key = (document, target)
                    assert key not in found[span.context_length], "scored twice"
                    found[span.context_length][key] = tuple(batch.input_ids[row, : position + 1].tolist())
    return found


@pytest.mark.parametrize("bos", ["every", "first", "none"])
@pytest.mark.parametrize(("context_lengths", "stride"), [([8], 1), ([8], 3), ([8], 6), ([4, 8, 16], 2), ([6, 8, 9], 4)])
@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 1), (3, 2), (2, 3)])
def test_tokens_and_contexts_are_those_of_the_definition(
    bos: Bos, context_lengths: list[int], stride: int, batch_size: int, world_size: int
) -> None:
    lengths = [1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 18, 40]
    found = by_plan(lengths, context_lengths, stride, bos, batch_size, world_size)
    for context_length in context_lengths:
        assert found[context_length] == by_definition(lengths, context_length, stride, bos)


def test_the_model_never_sees_more_positions_than_the_context_length() -> None:
    for shape in WindowPlan([4, 8], 2, "every").group([100]):
        assert shape.length in (4, 8)
    (contexts,) = by_plan([100], [8], 2, "every", 1, 1).values()
    assert max(map(len, contexts.values())) == 7  # and the token itself is the eighth


def test_few_shapes_for_the_compiler() -> None:
    groups = WindowPlan([256, 512, 1024, 2048], 128, "every").group(list(range(1, 6000, 7)))
    assert len(groups) == 8


@pytest.mark.parametrize(("stride", "bos"), [(9, "every"), (8, "every"), (8, "none"), (7, "first"), (0, "every")])
def test_a_stride_that_skips_tokens_is_refused(stride: int, bos: Bos) -> None:
    with pytest.raises(UserError, match=f"stride is {stride}: with context length 8"):
        WindowPlan([16, 8], stride, bos)


def test_longest_windows_come_first() -> None:
    planned = plan_batches(WindowPlan([4, 16], 2, "every").group([30, 5]), batch_size=2, world_size=1)
    lengths = [shape.length for shape, _ in planned]
    assert lengths == sorted(lengths, reverse=True)
    assert torch.tensor(lengths).unique().tolist() == [4, 16]


@pytest.mark.parametrize("bos", ["every", "first", "none"])
def test_disjoint_windows_that_hold_what_others_score(bos: Bos) -> None:
    """They are those with a token in common, of every context length, and no others."""
    plan, tokens = WindowPlan([6, 14], 3, bos), [40, 5, 33]

    def scored(shape: Shape, window: Window) -> set[tuple[int, int]]:
        end = min(window.begin + shape.length - shape.bos, tokens[window.document])
        places = {place + 1 - shape.bos for _, positions in shape.positions for place in positions}
        return {(window.document, window.begin + place) for place in places if window.begin + place < end}

    given = {shape: windows[1::4] for shape, windows in plan.group(tokens).items()}
    wanted = set().union(*(scored(shape, window) for shape, windows in given.items() for window in windows))
    found = plan.disjoint_holding(given, tokens)
    for disjoint in plan.disjoint():
        for shape, windows in disjoint.group(tokens).items():
            assert found.get(shape, []) == [window for window in windows if scored(shape, window) & wanted]
    assert (
        0
        < sum(map(len, found.values()))
        < sum(len(group) for p in plan.disjoint() for group in p.group(tokens).values())
    )
