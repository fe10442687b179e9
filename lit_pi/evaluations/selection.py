"""Which documents, or questions, an evaluation measures when it does not measure all."""

import numpy as np
from numpy.typing import NDArray


def at_most(places: NDArray[np.int64], most: int | None, seed: int) -> NDArray[np.int64]:
    """Choose at random, without putting anything back; the same for every strategy and on every machine.

    Args:
        places: those to choose from, ascending.
        most: how many to choose; all where there are no more, or if it is None.
        seed: makes the choice.

    Returns:
        What was chosen, ascending.
    """
    return places if most is None else np.sort(np.random.default_rng(seed).permutation(places)[:most])
