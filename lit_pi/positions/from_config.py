"""The positions that a model's own config asks for."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import Float32
from torch import Tensor

from lit_pi.errors import UserError
from lit_pi.positions.adjusted_base import AdjustedBase
from lit_pi.positions.base import PositionStrategy
from lit_pi.positions.by_layer import ByLayer, is_by_kind
from lit_pi.positions.dynamic_ntk import DynamicNTK
from lit_pi.positions.extrapolate import Extrapolate
from lit_pi.positions.interpolate import Interpolate
from lit_pi.positions.llama3 import Llama3
from lit_pi.positions.longrope import LongRoPE
from lit_pi.positions.no_positions import NoPositions
from lit_pi.positions.prope import PRoPE
from lit_pi.positions.rope import Rope
from lit_pi.positions.yarn import YaRN, temperature


class FromConfig(PositionStrategy):
    """Whatever the loaded model's config says in `rope_parameters`: a model that arrives extended stays as it is.

    Once the model is loaded, the strategy that does the same stands in its place, and in results.
    """

    def for_model(self, rope_parameters: Mapping[str, Any], rope: Rope) -> PositionStrategy:
        """The strategy that a config's `rope_parameters` describe; `ByLayer` where kinds of layers differ.

        Raises:
            UserError: no strategy here does what they say.
        """
        if is_by_kind(rope_parameters):
            kinds = {kind: parameters for kind, parameters in rope_parameters.items() if parameters is not None}
            layers = {kind: self.for_model(parameters, rope.of_kind(kind)) for kind, parameters in kinds.items()}
            # Of a kind without parameters transformers never asks.
            layers |= dict.fromkeys(rope_parameters.keys() - kinds.keys(), Extrapolate())
            described = [strategy.describe() for strategy in layers.values()]
            same = all(each == described[0] for each in described)
            return next(iter(layers.values())) if same else ByLayer(layers)
        kind = rope_parameters.get("rope_type", "default")
        if kind not in _STRATEGIES:
            raise UserError(
                f"the model's config has rope_type {kind!r}, which FromConfig does not know: it knows "
                f"{', '.join(_STRATEGIES)}; name a strategy in model.position"
            )
        position = _STRATEGIES[kind](rope_parameters, rope)
        theta = float(rope_parameters.get("rope_theta", rope.rope_theta))
        if theta != rope.rope_theta:
            if not isinstance(position, Extrapolate):
                raise UserError(
                    f"the model's config has rope_type {kind!r} with rope_theta {theta:g}, and pre-training had "
                    f"{rope.rope_theta:g}: name the strategy in model.position"
                )
            return AdjustedBase(theta)
        return position

    def inv_freq(self, rope: Rope, context_length: int) -> Float32[Tensor, " half"]:
        """Nothing before a model is loaded."""
        raise UserError("FromConfig stands for what a model's config says: it has no frequencies without a model")


def _yarn(parameters: Mapping[str, Any], rope: Rope) -> PositionStrategy:
    factor, attention_factor = float(parameters["factor"]), parameters.get("attention_factor")
    mscale, mscale_all = parameters.get("mscale"), parameters.get("mscale_all_dim")
    if attention_factor is None and mscale and mscale_all:
        attention_factor = temperature(factor, mscale) / temperature(factor, mscale_all)
    beta_fast, beta_slow = parameters.get("beta_fast") or 32.0, parameters.get("beta_slow") or 1.0
    truncate = parameters.get("truncate", True)
    return YaRN(
        factor, beta_fast=beta_fast, beta_slow=beta_slow, attention_factor=attention_factor, truncate=bool(truncate)
    )


def _longrope(parameters: Mapping[str, Any], rope: Rope) -> PositionStrategy:
    return LongRoPE(
        parameters["long_factor"],
        parameters["short_factor"],
        scale=float(parameters.get("factor") or 1.0),
        attention_factor=parameters.get("attention_factor"),
    )


def _llama3(parameters: Mapping[str, Any], rope: Rope) -> PositionStrategy:
    return Llama3(
        float(parameters["factor"]),
        low_freq_factor=parameters["low_freq_factor"],
        high_freq_factor=parameters["high_freq_factor"],
    )


def _proportional(parameters: Mapping[str, Any], rope: Rope) -> PositionStrategy:
    fraction, factor = parameters.get("partial_rotary_factor", 1.0), float(parameters.get("factor") or 1.0)
    if not fraction:
        return NoPositions()
    return PRoPE(fraction, scale=factor)


_STRATEGIES: dict[str, Callable[[Mapping[str, Any], Rope], PositionStrategy]] = {
    "default": lambda parameters, rope: Extrapolate(),
    "linear": lambda parameters, rope: Interpolate(float(parameters["factor"])),
    "dynamic": lambda parameters, rope: DynamicNTK(float(parameters["factor"])),
    "yarn": _yarn,
    "llama3": _llama3,
    "longrope": _longrope,
    "proportional": _proportional,
}
"""Readers of transformers' rope types, by type."""
