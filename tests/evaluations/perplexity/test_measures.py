"""Figures follow from losses: the same ones for any number of ranks and batch sizes, and equal to plain loops."""

import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from sampled import only

from lit_pi.batches import IGNORE, Span
from lit_pi.evaluations.perplexity.measures import Perplexities, measure
from lit_pi.evaluations.perplexity.perplexity import WindowBatches
from lit_pi.evaluations.perplexity.sampled.sampling import WindowSample
from lit_pi.evaluations.perplexity.token_scores import Series, TokenLosses, TokenScores
from lit_pi.evaluations.perplexity.windows import Bos, Window, WindowPlan, plan_batches

LENGTHS = [1, 3, 7, 8, 9, 20, 41, 60]
CONTEXT_LENGTHS = [8, 12, 20]


class Documents:
    """Documents whose token at place t is t, as far as `WindowBatches` asks a store."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def document(self, index: int) -> np.ndarray:
        return np.arange(self.lengths[index])


def loss(document: int, token: int, context: int) -> float:
    """What a model might lose on a token with so many positions before it."""
    return 3 + math.sin(7 * document + token) + 2 / context


def gathered(
    plans: list[WindowPlan],
    lengths: list[int],
    batch_size: int = 2,
    world_size: int = 1,
    sample: WindowSample | None = None,
) -> TokenLosses:
    """The store of as many ranks, gathered by hand."""
    groups = {shape: windows for plan in plans for shape, windows in plan.group(lengths).items()}
    if sample is not None:
        groups = {
            shape: [window for window in windows if drawn(window, plans[0].stride, sample)]
            for shape, windows in groups.items()
        }
    planned = plan_batches(groups, batch_size, world_size)
    batches = WindowBatches("x", Documents(lengths), np.arange(len(lengths)), np.array(lengths), 1000, planned)
    series = [Series(plan.scheme, length) for plan in plans for length in plan.context_lengths]
    ranks = [TokenScores(series, lengths) for _ in range(world_size)]
    for index in range(len(batches)):
        batch = batches[index]
        losses = torch.zeros(batch.targets.shape)
        for row, document in enumerate(batch.documents.tolist()):
            for column, target in enumerate(batch.targets[row].tolist()):
                if target != IGNORE:
                    losses[row, column] = loss(document, target, int(batch.scored[column]) + 1)
        token_nll = [losses[:, span.start : span.stop] for span in batch.spans]
        ranks[index % world_size].update(
            batch.spans, token_nll, batch.targets, batch.scored, batch.documents, batch.begins
        )
    whole = TokenScores(series, lengths)
    whole.token_nll = [part for rank in ranks for part in rank.token_nll]
    whole.rows = [part for rank in ranks for part in rank.rows]
    whole._update_count = 1
    return whole.compute()


def drawn(window: Window, stride: int, sample: WindowSample) -> bool:
    return bool(sample.includes(np.array([window.document]), np.array([window.begin // stride]))[0])


def by_loops(length: int, stride: int, bos: Bos, common_from: int) -> dict[str, float]:
    """Every definition from its words, window by window."""
    tokens, windows, documents, firsts, common = [], [], defaultdict(list), [], []
    for document, total in enumerate(LENGTHS):
        begin, scored_to = 0, int(bos == "none")
        while begin == 0 or scored_to < total:
            prefix = int(bos == "every" or (bos == "first" and begin == 0))
            end = min(begin + length - prefix, total)
            losses = {token: loss(document, token, token - begin + prefix) for token in range(scored_to, end)}
            tokens += losses.values()
            documents[document] += losses.values()
            common += [value for token, value in losses.items() if token >= common_from]
            if losses:
                windows.append(np.mean([*losses.values()]))
                firsts += [windows[-1]] if begin == 0 else []
            begin, scored_to = begin + stride, max(end, scored_to)
    return {
        "token_weighted": math.exp(np.mean(tokens)),
        "window_mean": math.exp(np.mean(windows)),
        "document_mean": math.exp(np.mean([np.mean(found) for found in documents.values() if found])),
        "common_tokens": math.exp(np.mean(common)),
        "truncate": math.exp(np.mean(firsts)),
    }


def values(found: Perplexities, length: int) -> dict[str, float]:
    return {
        name: point.value for name, points in found.definitions.items() for point in points
        if point.context_length == length
    }  # fmt: skip


@pytest.mark.parametrize("bos", ["every", "first", "none"])
@pytest.mark.parametrize("stride", range(1, 8))
def test_definitions_at_every_stride(stride: int, bos: Bos) -> None:
    if bos == "first" and stride == 7:
        pytest.skip("it would leave tokens unscored")
    plan = WindowPlan(CONTEXT_LENGTHS, stride, bos)
    found = measure(gathered([plan, *plan.disjoint()], LENGTHS), [plan, *plan.disjoint()])
    for length in CONTEXT_LENGTHS:
        expected = by_loops(length, stride, bos, CONTEXT_LENGTHS[-1] - stride)
        expected["disjoint"] = by_loops(length, length - (2 if bos == "first" else 1), bos, 0)["token_weighted"]
        assert values(found, length) == pytest.approx(expected, rel=1e-6)
    counts = [point.tokens for point in found.curve]
    assert counts == [sum(LENGTHS) - (len(LENGTHS) if bos == "none" else 0)] * 3


@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 1), (3, 1), (7, 2), (2, 3), (1, 5)])
def test_ranks_and_batches_change_no_bit(batch_size: int, world_size: int) -> None:
    plan = WindowPlan(CONTEXT_LENGTHS, 3, "every")
    plans = [plan, *plan.disjoint()]
    one, many = gathered(plans, LENGTHS), gathered(plans, LENGTHS, batch_size, world_size)
    for series, nll in one.nll.items():
        assert (nll == many.nll[series]).all(), series
    assert measure(one, plans)[:4] == measure(many, plans)[:4]


def test_losses_have_their_own_place_by_position() -> None:
    plan = WindowPlan([8, 20], 4, "every")
    found = measure(gathered([plan], LENGTHS), [plan])
    for length, buckets in found.positions.items():
        assert [bucket.start for bucket in buckets] == [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45]
        assert sum(bucket.tokens for bucket in buckets) == sum(LENGTHS)
        first = np.mean([loss(document, 0, 1) for document in range(len(LENGTHS))])
        assert buckets[0].token_nll == pytest.approx(first, rel=1e-6), length


def test_drawn_windows_weigh_by_position_what_they_stand_for() -> None:
    plan, lengths = WindowPlan([8], 4, "every"), [70, 50]
    counts = np.array([plan.count(8, length) for length in lengths])
    sample = WindowSample(counts, 8, seed=0)
    losses = only(gathered([plan], lengths), plan, sample)
    totals, weights = defaultdict(float), defaultdict(float)
    for document, length in enumerate(lengths):
        bounds = plan.bounds(8, length).tolist()
        for number in range(len(bounds) - 1):
            weight = sample.weights(np.array([document]), np.array([number]))[0]
            for token in range(bounds[number], bounds[number + 1]) if weight else ():
                totals[token] += weight * loss(document, token, token - number * 4 + 1)
                weights[token] += weight
    (buckets,) = measure(losses, [plan], sample).positions.values()
    for bucket in buckets:
        places = range(bucket.start, bucket.stop)
        expected = sum(totals[place] for place in places) / sum(weights[place] for place in places)
        assert bucket.token_nll == pytest.approx(expected, rel=1e-6)


def test_context_gain_is_on_the_same_tokens() -> None:
    plan = WindowPlan(CONTEXT_LENGTHS, 4, "every")
    found = measure(gathered([plan], LENGTHS), [plan])
    short, *longer = (math.log(by_loops(length, 4, "every", 16)["common_tokens"]) for length in CONTEXT_LENGTHS)
    assert [(gain.context_length, gain.shortest) for gain in found.context_gain] == [(12, 8), (20, 8)]
    for gain, expected in zip(found.context_gain, longer, strict=True):
        assert gain.gain == pytest.approx(short - expected, rel=1e-5)
        # The documents' own levels cancel: what is left is the gain of context alone.
        assert gain.low is not None and gain.high is not None and 0 < gain.low < gain.gain < gain.high < 0.3


def uneven(plans: list[WindowPlan], lengths: list[int]) -> TokenLosses:
    """Losses of which each pass has a part of its own."""
    losses, chance = gathered(plans, lengths), np.random.default_rng(0)
    return losses._replace(
        nll={series: nll + chance.normal(0, 0.2, len(nll)).astype(np.float32) for series, nll in losses.nll.items()}
    )


@pytest.mark.parametrize("disjoint", [False, True])
def test_sampled_windows_estimate_every_definition_without_bias(disjoint: bool) -> None:
    plan, lengths = WindowPlan(CONTEXT_LENGTHS, 3, "every"), [25, 200, 90, 150]
    plans = [plan, *(plan.disjoint() if disjoint else [])]
    counts = np.array([plan.count(8, length) for length in lengths])
    token_bytes = [np.full(length, 1.5) for length in lengths]
    losses = uneven(plans, lengths)
    full = measure(losses, plans, None, token_bytes)
    names = [(name, place) for name in full.definitions if name != "disjoint" for place in range(3)]
    assert len(names) == 6 * 3
    errors = {name: [] for name in names}
    held = {name: [] for name in names}
    gains_held = []
    for seed in range(200):
        sample = WindowSample(counts, 60, seed)
        found = measure(only(losses, plan, sample), plans, sample, token_bytes)
        for name, place in names:
            point, truth = found.definitions[name][place], full.definitions[name][place].value
            errors[name, place].append(
                math.log(point.value / truth) if name != "bits_per_byte" else point.value - truth
            )
            if point.sampling_low is not None and point.sampling_high is not None:
                held[name, place].append(point.sampling_low <= truth <= point.sampling_high)
        for gain, truth in zip(found.context_gain, full.context_gain, strict=True):
            gains_held.append(gain.sampling_low <= truth.gain <= gain.sampling_high)
            assert gain.sampling_low < gain.gain < gain.sampling_high and truth.sampling_low is None
    assert 0.88 <= np.mean(gains_held) <= 1
    for key, found in errors.items():
        if key[0] == "truncate":  # first windows are always run
            assert max(map(abs, found)) < 1e-12 and not held[key]
        else:
            assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(200), key
            assert 0.88 <= np.mean(held[key]) <= 1, key  # 200 draws: 0.95 less 4.5 standard errors


def test_disjoint_windows_make_figures_of_a_sample_more_exact() -> None:
    plan, lengths = WindowPlan(CONTEXT_LENGTHS, 3, "every"), [400, 300]
    plans = [plan, *plan.disjoint()]
    losses = uneven(plans, lengths)
    full, counts = measure(losses, plans), np.array([plan.count(8, length) for length in lengths])
    truth = [bucket.token_nll for buckets in full.positions.values() for bucket in buckets]
    widths, errors = [], []
    for seed in range(20):
        sample = WindowSample(counts, 120, seed)
        found = [measure(only(losses, plan, sample), used, sample) for used in ([plan], plans)]
        widths.append([[math.log(point.sampling_high / point.perplexity) for point in run.curve] for run in found])
        errors.append([[bucket.token_nll for buckets in run.positions.values() for bucket in buckets] for run in found])
    plain, close = np.mean(widths, axis=0)
    assert (close < plain / 2).all()
    plain, close = np.sqrt(np.square(np.array(errors) - truth).mean(axis=(0, 2)))
    assert close < plain / 2


def test_a_model_that_diverges_is_estimated_all_the_same() -> None:
    plan, lengths = WindowPlan([8, 12], 3, "every"), [200]
    plans = [plan, *plan.disjoint()]
    losses = gathered(plans, lengths)
    for length in (8, 12):
        losses.nll[Series("disjoint", length)][60:70] = np.inf
    sample = WindowSample(np.array([plan.count(8, 200)]), 20, 0)
    found = measure(only(losses, plan, sample), plans, sample)
    for point in found.curve:
        assert point.sampling_low < point.perplexity < point.sampling_high


def test_a_run_of_the_sample_is_what_the_loader_plans() -> None:
    plan = WindowPlan(CONTEXT_LENGTHS, 3, "every")
    sample = WindowSample(np.array([plan.count(8, length) for length in LENGTHS]), 8, seed=1)
    run = gathered([plan], LENGTHS, sample=sample)
    for series, nll in only(gathered([plan], LENGTHS), plan, sample).nll.items():
        np.testing.assert_array_equal(run.nll[series], nll)


def test_what_was_cut_short_counts_what_was_run() -> None:
    plan = WindowPlan([8], 4, "every")
    losses = gathered([plan], [30, 30])
    losses.nll[Series("sliding", 8)][19:] = np.nan  # windows score 7, 4, 4, 4, ... tokens
    found = measure(losses, [plan], WindowSample(np.array([7, 7]), 4, 0))
    (point,) = found.curve
    assert point.tokens == 19 and point.low is None and point.sampling_low is None
    assert point.token_nll == pytest.approx(losses.nll[Series("sliding", 8)][:19].mean(), rel=1e-6)


def scores(token_nll: torch.Tensor) -> tuple[TokenLosses, WindowPlan]:
    """One document, scored by one window."""
    width = token_nll.shape[1]
    metric = TokenScores([Series("sliding", width + 1)], [width]).bfloat16()
    batch = (torch.ones(1, width, dtype=torch.long), torch.arange(width), torch.tensor([0]), torch.tensor([-1]))
    metric.update((Span(width + 1, 0, width),), [token_nll], *batch)
    return metric.compute(), WindowPlan([width + 1], 1, "every")


def test_small_losses_count_beside_large_ones() -> None:
    token_nll = torch.ones(1, 102)
    token_nll[0, 0] = 2.0**24  # where float32 ends to tell n from n + 1
    losses, plan = scores(token_nll)
    (point,) = measure(losses, [plan]).curve
    assert point.token_nll == (2.0**24 + 101) / 102
    assert point.perplexity == math.inf


def test_a_loss_that_is_no_number_is_scored_and_infinite() -> None:
    losses, plan = scores(torch.tensor([[1.0, math.nan, 2.0]]))
    (point,) = measure(losses, [plan]).curve
    assert (point.perplexity, point.tokens, point.low) == (math.inf, 3, None)
