"""Which documents are measured when not all are."""

import numpy as np

from lit_pi.evaluations.selection import at_most


def test_a_choice_is_as_large_as_asked_and_in_order() -> None:
    places = np.array([3, 5, 8, 13, 21, 34])
    found = at_most(places, 4, seed=0)
    assert len(found) == 4 and set(found) <= set(places) and (np.diff(found) > 0).all()
    for most in (None, 6, 7):
        assert (at_most(places, most, seed=0) == places).all()


def test_a_larger_choice_holds_the_smaller_one_and_a_seed_makes_another() -> None:
    places = np.arange(1000)
    few, more = at_most(places, 10, seed=1), at_most(places, 20, seed=1)
    assert set(few) < set(more) and set(few) != set(at_most(places, 10, seed=2))


def test_every_document_is_as_likely() -> None:
    counts = np.zeros(5)
    for seed in range(2000):
        counts[at_most(np.arange(5), 2, seed)] += 1
    assert (abs(counts / 2000 - 2 / 5) < 0.05).all()  # 4.5 standard deviations


def test_choices_of_published_results_are_made_again() -> None:
    """What evaluations chose with NumPy's `default_rng(0)` before they shared this function."""
    assert at_most(np.arange(20), 5, seed=0).tolist() == [2, 4, 6, 13, 19]
