"""lit_pi: extend the context window of LLaMA-family models, and prove what was gained.

>>> import lit_pi
>>> model, tokenizer = lit_pi.load("meta-llama/Llama-2-7b-hf")
>>> lit_pi.extend(model, lit_pi.Interpolate(scale=4))
>>> lit_pi.perplexity_curve(model, tokenizer, texts, context_lengths=[4096, 8192, 16384])

Importing it is quick: what a name needs is imported when the name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lit_pi.evaluations import (
        DecodeConsistency,
        Evaluation,
        MultipleChoice,
        PasskeyRetrieval,
        Perplexity,
        Probe,
        Results,
        ScoringBatches,
        Summarization,
    )
    from lit_pi.positions import (
        FULL_ATTENTION,
        AdjustedBase,
        AttentionRule,
        ByLayer,
        Contiguous,
        CoPE,
        DerivedStrategy,
        DynamicNTK,
        Extrapolate,
        FromConfig,
        Interpolate,
        LayerRotations,
        Llama3,
        LongRoPE,
        NoPositions,
        NTKAware,
        NTKByParts,
        Pass,
        PoSE,
        PositionStrategy,
        PRoPE,
        Resonance,
        Rope,
        Rotation,
        SelfExtend,
        StretchingStrategy,
        TrainPositions,
        YaRN,
        prefix_agrees,
    )
    from lit_pi.python.extending import extend
    from lit_pi.python.generating import generate
    from lit_pi.python.loading import load, save
    from lit_pi.python.measuring import measure, passkey, perplexity_curve

_FUNCTIONS = {
    "extend": "extending",
    "generate": "generating",
    "load": "loading",
    "save": "loading",
    "measure": "measuring",
    "passkey": "measuring",
    "perplexity_curve": "measuring",
}
"""Modules of `lit_pi.python`."""

_EVALUATIONS = {
    "DecodeConsistency",
    "Evaluation",
    "MultipleChoice",
    "PasskeyRetrieval",
    "Perplexity",
    "Probe",
    "Results",
    "ScoringBatches",
    "Summarization",
}

__all__ = [
    "FULL_ATTENTION",
    "AdjustedBase",
    "AttentionRule",
    "ByLayer",
    "CoPE",
    "Contiguous",
    "DecodeConsistency",
    "DerivedStrategy",
    "DynamicNTK",
    "Evaluation",
    "Extrapolate",
    "FromConfig",
    "Interpolate",
    "LayerRotations",
    "Llama3",
    "LongRoPE",
    "MultipleChoice",
    "NTKAware",
    "NTKByParts",
    "NoPositions",
    "PRoPE",
    "Pass",
    "PasskeyRetrieval",
    "Perplexity",
    "PoSE",
    "PositionStrategy",
    "Probe",
    "Resonance",
    "Results",
    "Rope",
    "Rotation",
    "ScoringBatches",
    "SelfExtend",
    "StretchingStrategy",
    "Summarization",
    "TrainPositions",
    "YaRN",
    "extend",
    "generate",
    "load",
    "measure",
    "passkey",
    "perplexity_curve",
    "prefix_agrees",
    "save",
]


def __getattr__(name: str) -> Any:
    """Import what a name stands for; later uses find it at once."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _FUNCTIONS:
        home = f"lit_pi.python.{_FUNCTIONS[name]}"
    else:
        home = "lit_pi.evaluations" if name in _EVALUATIONS else "lit_pi.positions"
    globals()[name] = found = getattr(import_module(home), name)
    return found


def __dir__() -> list[str]:
    """Every name, imported or not."""
    return sorted({*globals(), *__all__})
