"""Fingerprints of strategies: their phases at a few positions, which tell two rotations apart whatever their names."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float32, Int
from torch import Tensor

from lit_pi.positions import PositionStrategy, Rope


class Phases(NamedTuple):
    """Cosine and sine of positions, computed on the CPU from the strategy alone, whatever a model makes of it.

    Attributes:
        cos: cosines, multiplied by the attention scaling.
        sin: sines, multiplied by the attention scaling.
    """

    cos: Float32[Tensor, "positions half"]
    sin: Float32[Tensor, "positions half"]


def phases_of(
    position: PositionStrategy, rope: Rope, position_ids: Int[Tensor, " positions"], context_length: int
) -> Phases:
    """Cosine and sine of positions in a sequence of `context_length` tokens."""
    with torch.autocast("cpu", enabled=False):
        # Only the angle's own float32 counts: cosine and sine of it are exact.
        angles = position.angles(position_ids.cpu()[None], rope, context_length)[0].double()
    scaling = position.attention_scaling(rope, context_length)
    return Phases((angles.cos() * scaling).float(), (angles.sin() * scaling).float())


def phase_tolerance(position_ids: Int[Tensor, " positions"]) -> Float32[Tensor, "positions 1"]:
    """The largest difference of phases that are the same but for the rounding of a frequency to float32."""
    return (1e-5 + position_ids.cpu().float() * 2**-22)[:, None]


def probed_positions(position: PositionStrategy, rope: Rope) -> dict[int, Int[Tensor, " positions"]]:
    """Context lengths at which a strategy is probed, in tokens, and positions in each."""
    original = rope.original_context
    lengths = {original, 2 * original, position.target_context_of(rope)}
    return {
        length: torch.tensor(
            sorted({place for place in (0, 1, length // 2, original - 1, original, length - 1) if 0 <= place < length})
        )
        for length in sorted(lengths)
    }


def fingerprint(position: PositionStrategy, rope: Rope) -> dict[str, Any]:
    """Phases at the probed positions, and the strategy's name and numbers where phases are not all of it.

    Tensors and primitives only, so that `weights_only` loading works.
    """
    probes = []
    for length, position_ids in probed_positions(position, rope).items():
        phases = phases_of(position, rope, position_ids, length)
        probes.append({"context_length": length, "position_ids": position_ids, **phases._asdict()})
    return {"attention_rule": _rule(position), "probes": probes}


def rotates_as(found: Mapping[str, Any], position: PositionStrategy, rope: Rope) -> bool:
    """Whether a strategy gives the phases of a fingerprint."""
    if found["attention_rule"] != _rule(position):
        return False
    for probe in found["probes"]:
        position_ids = probe["position_ids"]
        phases = phases_of(position, rope, position_ids, probe["context_length"])
        for name, expected in phases._asdict().items():
            if expected.shape != probe[name].shape or differs(probe[name], expected, position_ids):
                return False
    return True


def differs(
    found: Float32[Tensor, "positions half"],
    expected: Float32[Tensor, "positions half"],
    position_ids: Int[Tensor, " positions"],
) -> bool:
    """Whether phases differ by more than rounding explains, or are no numbers."""
    return not bool(((found - expected).abs() <= phase_tolerance(position_ids)).all())


def _rule(position: PositionStrategy) -> dict[str, Any] | None:
    return None if position.attention_rule is None else position.describe()
