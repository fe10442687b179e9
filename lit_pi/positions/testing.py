"""The contract of position strategies, for a strategy of your own: `check_contract(MyStrategy())` in a test."""

import copy
import json
from collections.abc import Sequence

import torch

from lit_pi.positions.base import PositionStrategy, prefix_agrees
from lit_pi.positions.by_layer import ByLayer
from lit_pi.positions.rope import Rope


def check_contract(
    position: PositionStrategy, ropes: Sequence[Rope] = (Rope(64, 10_000.0, 2048),), monotonic: bool = True
) -> None:
    """Check what everything else in lit_pi relies on.

    Args:
        position: the strategy; of `ByLayer` each one in it is checked.
        ropes: rotary embeddings of pre-training; the strategy is checked for each of them.
        monotonic: whether frequencies must not rise from one to the next, as in every model.

    Raises:
        AssertionError: with a sentence on what does not hold.
    """
    described = position.describe()
    if isinstance(position, ByLayer):
        for name, strategy in position.layers.items():
            check_contract(strategy, [rope.of_kind(name) for rope in ropes], monotonic)
    assert described["class"] == type(position).__name__, "describe() must name the class"
    assert json.loads(json.dumps(described)) == described, "describe() must be plain JSON"
    for rope in () if isinstance(position, ByLayer) else ropes:
        lengths = [rope.original_context * factor // 2 for factor in (1, 2, 4, 8)]
        for length in lengths:
            _check_frequencies(position, rope, length, monotonic)
            _check_angles(position, rope, length)
        agrees = prefix_agrees(position, rope, lengths)
        assert agrees == position.prefix_consistent, (
            f"prefix_consistent is {position.prefix_consistent}, but the angles of a prefix "
            f"{'do not depend' if agrees else 'depend'} on what follows it"
        )


def _check_frequencies(position: PositionStrategy, rope: Rope, length: int, monotonic: bool) -> None:
    inv_freq = position.inv_freq(rope, length)
    assert inv_freq.shape == (rope.head_dim // 2,), f"inv_freq must have {rope.head_dim // 2} frequencies"
    assert inv_freq.dtype == torch.float32, "inv_freq must be float32"
    assert inv_freq.isfinite().all() and (inv_freq >= 0).all(), "frequencies must be finite and not negative"
    assert not monotonic or (inv_freq.diff() <= 0).all(), "frequencies must not rise"
    assert torch.equal(copy.deepcopy(position).inv_freq(rope, length), inv_freq), "a copy must give the same"
    scaling = position.attention_scaling(rope, length)
    assert 0 < scaling < float("inf"), "attention_scaling must be positive"


def _check_angles(position: PositionStrategy, rope: Rope, length: int) -> None:
    position_ids = torch.tensor([[0, 1, 5, length // 2, length - 1], [3, 3, 3, 100_000, 2]])
    angles = position.angles(position_ids, rope, length)
    exact = position_ids[..., None].double() * position.inv_freq(rope, length).double()
    assert angles.dtype == torch.float32, "angles must be float32"
    assert torch.allclose(angles.double(), exact, rtol=1e-6, atol=0), "angles must be positions times frequencies"
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)  # as `bf16-true` does
    try:
        in_half_precision = position.angles(position_ids, rope, length)
    finally:
        torch.set_default_dtype(default)
    assert torch.equal(in_half_precision, angles), "angles must not depend on torch's default dtype"
    with torch.autocast("cpu", torch.bfloat16):
        mixed = position.angles(position_ids, rope, length)
    assert torch.equal(mixed, angles), "angles must not depend on autocast"
