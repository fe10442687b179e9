"""Position strategies: how token positions become rotary angles. Pure torch, one file a strategy."""

from lit_pi.positions.adjusted_base import AdjustedBase
from lit_pi.positions.attention_rule import AttentionRule, Pass
from lit_pi.positions.base import PositionStrategy, StretchingStrategy, prefix_agrees
from lit_pi.positions.by_layer import ByLayer
from lit_pi.positions.cope import CoPE
from lit_pi.positions.derived import DerivedStrategy
from lit_pi.positions.dynamic_ntk import DynamicNTK
from lit_pi.positions.extrapolate import Extrapolate
from lit_pi.positions.from_config import FromConfig
from lit_pi.positions.interpolate import Interpolate
from lit_pi.positions.layer_rotations import FULL_ATTENTION, LayerRotations, Rotation
from lit_pi.positions.llama3 import Llama3
from lit_pi.positions.longrope import LongRoPE
from lit_pi.positions.no_positions import NoPositions
from lit_pi.positions.ntk_aware import NTKAware
from lit_pi.positions.ntk_by_parts import NTKByParts
from lit_pi.positions.pose import PoSE
from lit_pi.positions.prope import PRoPE
from lit_pi.positions.resonance import Resonance
from lit_pi.positions.rope import Rope
from lit_pi.positions.self_extend import SelfExtend
from lit_pi.positions.train_positions import Contiguous, TrainPositions
from lit_pi.positions.yarn import YaRN

__all__ = [
    "FULL_ATTENTION",
    "AdjustedBase",
    "AttentionRule",
    "ByLayer",
    "CoPE",
    "Contiguous",
    "DerivedStrategy",
    "DynamicNTK",
    "Extrapolate",
    "FromConfig",
    "Interpolate",
    "LayerRotations",
    "Llama3",
    "LongRoPE",
    "NTKAware",
    "NTKByParts",
    "NoPositions",
    "PRoPE",
    "Pass",
    "PoSE",
    "PositionStrategy",
    "Resonance",
    "Rope",
    "Rotation",
    "SelfExtend",
    "StretchingStrategy",
    "TrainPositions",
    "YaRN",
    "prefix_agrees",
]
