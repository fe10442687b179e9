"""The order of training samples is one endless stream, whatever stops, ranks or epochs cut it."""

import pytest

from lit_pi.data.order import MIXTURE, EndlessOrder, Progress, RankShare

SIZE = 23


def stream(world_size: int, batch_size: int, consumed: int, epochs: int, seed: int = 0) -> list[int]:
    """Samples that all ranks consume together, in order, over `epochs` epochs."""
    samples: list[int] = []
    orders = [
        EndlessOrder([SIZE], seed, world_size, rank, batch_size, lambda: consumed + len(samples))
        for rank in range(world_size)
    ]
    for _ in range(epochs):
        samples += [sample for step in zip(*[list(order) for order in orders], strict=True) for sample in step]
    return samples


def test_each_pass_holds_every_sample_once_in_an_order_of_its_own() -> None:
    samples = stream(1, 1, 0, 3)
    passes = [samples[i * SIZE : (i + 1) * SIZE] for i in range(3)]
    assert all(sorted(one) == list(range(SIZE)) for one in passes)
    assert passes[0] != passes[1] != passes[2] != list(range(SIZE))
    assert stream(1, 1, 0, 1, seed=1) != passes[0]


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 4), (2, 3), (3, 1)])
def test_ranks_and_batches_share_one_stream_and_drop_nothing(world_size: int, batch_size: int) -> None:
    shared = stream(world_size, batch_size, 0, 2)
    assert shared == stream(1, 1, 0, 4)[: len(shared)]
    assert len(shared) % (world_size * batch_size) == 0


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_a_resumed_run_goes_on_with_the_next_sample_on_any_number_of_ranks(world_size: int) -> None:
    whole = stream(1, 1, 0, 8)
    resumed = stream(world_size, 2, 30, 2)
    assert resumed == whole[30 : 30 + len(resumed)]


def weighed(start: int, count: int, weights: list[float], world_size: int = 1) -> list[int]:
    """Samples of three sources of 7, 50 and 11 samples, from the start-th on."""
    orders = [
        EndlessOrder([7, 50, 11], 3, world_size, rank, count, lambda: start, weights) for rank in range(world_size)
    ]
    return [sample for step in zip(*[list(order) for order in orders], strict=True) for sample in step][:count]


@pytest.mark.parametrize("weights", [[2, 1, 1], [1, 0, 3], [0.5, 100_000, 0.2]])
def test_sources_are_drawn_as_their_weights_say_and_each_in_whole_passes(weights: list[float]) -> None:
    samples = weighed(0, 3 * MIXTURE, weights)
    for source, (low, high) in enumerate(((0, 7), (7, 57), (57, 68))):
        own = [sample - low for sample in samples if low <= sample < high]
        share = weights[source] / sum(weights)
        assert len(own) == 3 * MIXTURE * share or abs(len(own) - 3 * MIXTURE * share) <= 3 * 2
        assert (len(own) > 0) == (weights[source] > 0)
        for start in range(0, len(own) - (high - low) + 1, high - low):
            assert sorted(own[start : start + high - low]) == list(range(high - low))


def test_a_mixture_goes_on_anywhere_on_any_number_of_ranks() -> None:
    whole = weighed(0, 2500, [3, 1, 2])
    assert weighed(990, 1500, [3, 1, 2]) == whole[990:2490]
    assert weighed(990, 1500, [3, 1, 2], world_size=2) == whole[990:2490]


def test_neighbours_stay_together_in_every_pass() -> None:
    order = EndlessOrder([22], 0, 1, 0, 22, lambda: 0, neighbours=4)
    samples = list(order)
    assert sorted(samples) == list(range(22))
    assert samples != list(range(22))
    runs = [samples[0]]
    for sample in samples[1:]:
        if sample // 4 != runs[-1] // 4:
            runs.append(sample)
    assert len(runs) == 6


def test_progress_counts_across_a_change_of_the_world_size() -> None:
    batches = 0
    progress = Progress(lambda: batches, samples_per_batch=8)
    batches = 5
    assert progress.consumed() == 40
    smaller = Progress(lambda: batches, samples_per_batch=2)
    smaller.resume(40)
    batches = 8
    assert smaller.consumed() == 46


def test_an_evaluation_is_shared_without_repetition_and_skipped_when_not_due() -> None:
    shares = [list(RankShare(6, 3, rank, lambda: True)) for rank in range(3)]
    assert shares == [[0, 3], [1, 4], [2, 5]]
    assert list(RankShare(6, 3, 0, lambda: False)) == []
