"""An exported directory against the model it was exported from: stock transformers must compute the same."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from lit_pi.errors import UserError
from lit_pi.export import stock
from lit_pi.export.directory import CONFIG, older_form
from lit_pi.models import LanguageModel
from lit_pi.models.fingerprint import differs, phases_of
from lit_pi.models.rotary import plain_phases
from lit_pi.models.sources.provenance import rope_types
from lit_pi.seal import Seal

EXPECTED = "verification.npz"
"""File of an exported directory: probes, and what the lit_pi model made of them. Not safetensors, which are weights."""

TOKENS, SCORED = 32, 4
"""Tokens of a probe, and how many of the last ones have their logits compared."""

LONGEST_WINDOW = 1024
"""Tokens of the longest window for which a probe has so many more; longer ones were proven when the model was built."""

FIELDS = (
    *("max_position_embeddings", "sliding_window", "use_sliding_window", "max_window_layers", "layer_types"),
    *("attention_chunk_size", "no_rope_layers"),
)
"""Fields of a config that must stay as exported, because no probe of few tokens shows all that they say."""

TOLERANCE, LONGROPE_TOLERANCE = 1e-5, 1e-3
"""Largest difference of a logit over the largest logit (at least 1): through transformers' own types, whose
frequencies are ours to the bit, and through `longrope` factors, which are rounded to float32."""


class Verified(NamedTuple):
    """The result of a comparison with stock transformers.

    Attributes:
        context_lengths: tokens of the probes' contexts, whose last positions were compared.
        difference: the largest difference of logits, over the largest logit.
        tolerance: the largest `difference` that is allowed.
    """

    context_lengths: list[int]
    difference: float
    tolerance: float


@torch.inference_mode()
def save_expectations(model: LanguageModel, directory: Path, target_context: int) -> None:
    """Write probes, and the logits and phases of the model for them, into a directory.

    Args:
        model: the model, in float32.
        directory: the directory that holds the model's config.
        target_context: tokens of context that the model is for, the last positions of which are probed.
    """
    config = json.loads((directory / CONFIG).read_text())
    original, llm, rotations = model.rope.original_context, model.llm, model.rotations
    rotation_of = dict(zip(rotations.kinds, (rotations.distinct[each] for each in rotations.of_layer), strict=True))
    # Ascending, because transformers' `dynamic` type does not shrink again.
    lengths = sorted({min(TOKENS, original), original, target_context})
    expected: dict[str, Any] = {
        "context_lengths": lengths,
        "kinds": list(rotation_of),
        "layout": model.rotary.layout,
        "fields": json.dumps({name: config[name] for name in FIELDS if name in config}),
    }
    generator = torch.Generator().manual_seed(0)
    for length in lengths:
        # Enough tokens to show windows, once.
        positions = spread_positions(length, TOKENS if length < lengths[-1] else TOKENS + _window(config))
        tokens = torch.randint(llm.config.vocab_size, (1, len(positions)), generator=generator)
        model.rotary.context_length = length
        logits = llm(
            input_ids=tokens,
            position_ids=positions[None],
            attention_mask=torch.ones_like(tokens),
            use_cache=False,
            logits_to_keep=SCORED,
        ).logits
        expected |= {
            f"tokens_{length}": tokens.numpy(),
            f"positions_{length}": positions[None].numpy(),
            f"logits_{length}": logits.numpy(),
        }
        for kind, rotation in rotation_of.items():
            phases = phases_of(*rotation, positions, length)
            expected |= {f"{name}_{length}_{kind}": each.numpy() for name, each in phases._asdict().items()}
    np.savez(directory / EXPECTED, **expected)


def _window(config: Mapping[str, Any]) -> int:
    """Tokens of the longest window or chunk that is probed beyond."""
    windows = (config.get(name) for name in ("sliding_window", "attention_chunk_size"))
    return max((window for window in windows if window and window <= LONGEST_WINDOW), default=0)


def spread_positions(context_length: int, tokens: int = TOKENS) -> Int[Tensor, " positions"]:
    """At most so many positions of a context: the first, ever sparser ones, and the last; tokens see all distances."""
    if context_length <= tokens:
        return torch.arange(context_length)
    spread = np.geomspace(1, context_length, tokens - SCORED - 1).round().astype(int) - 1
    return torch.from_numpy(np.union1d(spread, np.arange(context_length - SCORED, context_length)))


def verify(directory: Path) -> Verified:
    """Compare an exported directory, as stock transformers loads it in a fresh process, with what was exported.

    Raises:
        UserError: it is no exported directory, or was changed since; transformers cannot load it, or computes another.
    """
    if not (directory / EXPECTED).is_file() or not (directory / CONFIG).is_file():
        raise UserError(f"{directory} is no directory that `lit-pi export` wrote: it has no {EXPECTED} or no {CONFIG}")
    Seal(directory).check_all()
    config = json.loads((directory / CONFIG).read_text())
    expected = np.load(directory / EXPECTED)
    if "kinds" not in expected:
        raise UserError(f"{directory} was exported by an older lit_pi, whose {EXPECTED} says less: export it again")
    _check_forms(directory, config, json.loads(str(expected["fields"])))
    found = _stock(directory)
    tolerance = LONGROPE_TOLERANCE if "longrope" in rope_types(config["rope_parameters"]).values() else TOLERANCE
    lengths = expected["context_lengths"].tolist()
    difference = max(_compare(directory, length, expected, found, tolerance) for length in lengths)
    return Verified(lengths, difference, tolerance)


def _check_forms(directory: Path, config: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """Whether readers of each form of the config see the same, and windows are those that were exported."""
    for name, value in {**older_form(config), **fields}.items():
        if config.get(name) != value:
            raise UserError(
                f"{directory / CONFIG} says {name} {json.dumps(config.get(name))}, and {json.dumps(value)} was "
                "exported or is what its rope_parameters say: export again instead of editing it"
            )


def _stock(directory: Path) -> dict[str, NDArray]:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "stock.npz"
        done = subprocess.run(  # noqa: S603 - this Python, and paths as arguments
            [sys.executable, "-P", stock.__file__, directory, directory / EXPECTED, output],
            capture_output=True,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"stock transformers cannot compute {directory} ({reason}): export it again")
        return dict(np.load(output))


def _compare(
    directory: Path, length: int, expected: Mapping[str, NDArray], found: Mapping[str, NDArray], tolerance: float
) -> float:
    """Largest difference of logits at the end of a context, over the largest logit.

    Raises:
        UserError: it, or one of the phases, is too large.
    """
    position_ids = torch.from_numpy(expected[f"positions_{length}"][0])
    layout: Any = str(expected["layout"])
    for kind in expected["kinds"].tolist():
        parts = [torch.from_numpy(found[n]) for n in sorted(found) if n.startswith(f"phases_{length}_{kind}_")]
        given = plain_phases(parts[0] if len(parts) == 1 else (parts[0], parts[1]), layout)
        for name, theirs in zip(("cos", "sin"), given, strict=True):
            theirs, ours = theirs[0], torch.from_numpy(expected[f"{name}_{length}_{kind}"])
            if theirs.shape != ours.shape or differs(theirs, ours, position_ids):
                raise UserError(
                    f"{directory} rotates otherwise than the model it was exported from: {name} of {kind} differs "
                    f"within the first {length} positions; was its {CONFIG} edited? Export it again"
                )
    logits = expected[f"logits_{length}"]
    difference = float(np.abs(found[f"logits_{length}"] - logits).max() / max(1.0, float(np.abs(logits).max())))
    if not difference <= tolerance:
        raise UserError(
            f"{directory} computes other logits than the model it was exported from: at positions up to {length} they "
            f"differ by {difference:.2g} of the largest, and {tolerance:g} is allowed; export it again"
        )
    return difference
