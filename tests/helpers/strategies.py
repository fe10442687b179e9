"""One row a strategy: what stands here is held to every test of positions and models."""

from lit_pi.positions import (
    AdjustedBase,
    ByLayer,
    CoPE,
    DynamicNTK,
    Extrapolate,
    Interpolate,
    Llama3,
    LongRoPE,
    NoPositions,
    NTKAware,
    NTKByParts,
    PRoPE,
    Resonance,
    SelfExtend,
    YaRN,
)

FACTORS = [1.0 + 0.1 * j for j in range(32)]

STRATEGIES = {
    "extrapolate": Extrapolate(),
    "interpolate": Interpolate(scale=4),
    "interpolate-target": Interpolate(target_context=3072),
    "ntk-aware": NTKAware(scale=4),
    "dynamic-ntk": DynamicNTK(scale=4),
    "ntk-by-parts": NTKByParts(scale=4),
    "ntk-by-parts-dimensions": NTKByParts(scale=4, ramp="dimensions"),
    "yarn": YaRN(scale=4),
    "yarn-rotations": YaRN(scale=4, ramp="rotations"),
    "llama3": Llama3(scale=8),
    "longrope": LongRoPE(FACTORS, scale=4),
    "adjusted-base": AdjustedBase(500_000.0),
    "resonance": Resonance(YaRN(scale=4)),
    "cope": CoPE(AdjustedBase(500_000.0), clipped=20),
    "prope": PRoPE(0.25),
    "no-positions": NoPositions(),
    "self-extend": SelfExtend(group_size=4, window=16),
}

BY_LAYER = {"by-layer": ByLayer({"0": Extrapolate(), "others": YaRN(scale=4)})}
"""Strategies of single layers, without frequencies for all: held to every test of models."""

IN_MODELS = STRATEGIES | BY_LAYER
