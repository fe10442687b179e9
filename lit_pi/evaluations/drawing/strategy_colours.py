"""Colours of position strategies: the same in every figure, whatever else it shows."""

from zlib import crc32

COLOURS = ("#767676", "#0072b2", "#d55e00", "#009e73", "#b96f9a", "#2f8fc4", "#a97b00")
"""Those of Okabe and Ito (2008), which colour-blind people tell apart; the light ones darker, so that every one stands
out against white and black by 3 to 1."""

KNOWN = {
    "Extrapolate": 0, "Interpolate": 1, "YaRN": 2, "NTKAware": 3, "LongRoPE": 4, "Llama3": 5, "DynamicNTK": 6,
    "FromConfig": 0, "PRoPE": 1, "NTKByParts": 6, "AdjustedBase": 3, "CoPE": 4, "SelfExtend": 5, "Resonance": 2,
    "NoPositions": 4, "ByLayer": 5,
}  # fmt: skip
"""Places of colours, by the name of a strategy's class; those that are seldom compared share one."""


def strategy_colour(name: str) -> str:
    """The colour of a strategy, by the name of its class, which may be anyone's own."""
    return COLOURS[KNOWN.get(name, crc32(name.encode())) % len(COLOURS)]
