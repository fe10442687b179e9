"""Fingerprints of strategies: their phases at a few positions, which tell two rotations apart whatever their names."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float32, Int
from torch import Tensor

from lit_pi.positions import LayerRotations, PositionStrategy, Rope


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


def probed_positions(rotations: LayerRotations) -> dict[int, Int[Tensor, " positions"]]:
    """Context lengths at which rotations are probed, in tokens, and positions in each."""
    original = rotations.rope.original_context
    lengths = {original, 2 * original, *(position.target_context_of(rope) for position, rope in rotations.distinct)}
    return {
        length: torch.tensor(
            sorted({place for place in (0, 1, length // 2, original - 1, original, length - 1) if 0 <= place < length})
        )
        for length in sorted(lengths)
    }


def fingerprint(rotations: LayerRotations) -> dict[str, Any]:
    """Phases of a model's rotations at the probed positions, and what else tells them apart.

    That is: strategy's name and numbers where phases are not all of it, and where there are several rotations, which
    layer has which. Tensors and primitives only, so that `weights_only` loading works.
    """
    by_rotation = []
    for position, rope in rotations.distinct:
        probes = []
        for length, position_ids in probed_positions(rotations).items():
            phases = phases_of(position, rope, position_ids, length)
            probes.append({"context_length": length, "position_ids": position_ids, **phases._asdict()})
        by_rotation.append(probes)
    found: dict[str, Any] = {"attention_rule": _rule(rotations.position), "probes": by_rotation[0]}
    if len(by_rotation) > 1:
        found |= {"others": by_rotation[1:], "of_layer": rotations.of_layer}
    return found


def rotates_as(found: Mapping[str, Any], rotations: LayerRotations) -> bool:
    """Whether a model's layers rotate by the phases of a fingerprint."""
    if found["attention_rule"] != _rule(rotations.position):
        return False
    probes = [found["probes"], *found.get("others", [])]
    if found.get("of_layer", [0] * len(rotations.of_layer)) != rotations.of_layer or len(probes) != len(
        rotations.distinct
    ):
        return False
    return all(_gives(each, *rotation) for each, rotation in zip(probes, rotations.distinct, strict=True))


def _gives(probes: Sequence[Mapping[str, Any]], position: PositionStrategy, rope: Rope) -> bool:
    for probe in probes:
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
