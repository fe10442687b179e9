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

EXPECTED = "verification.npz"
"""File of an exported directory: probes, and what the lit_pi model made of them. Not safetensors, which are weights."""

TOKENS, SCORED = 32, 4
"""Tokens of a probe, and how many of the last ones have their logits compared."""

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
    original, llm = model.rope.original_context, model.llm
    # Ascending, because transformers' `dynamic` type does not shrink again.
    lengths = sorted({min(TOKENS, original), original, target_context})
    expected: dict[str, Any] = {
        "context_lengths": lengths,
        "max_position_embeddings": config["max_position_embeddings"],
    }
    generator = torch.Generator().manual_seed(0)
    for length in lengths:
        positions = spread_positions(length)
        tokens = torch.randint(llm.config.vocab_size, (1, len(positions)), generator=generator)
        model.rotary.context_length = length
        logits = llm(input_ids=tokens, position_ids=positions[None], use_cache=False, logits_to_keep=SCORED).logits
        phases = phases_of(model.position, model.rope, positions, length)
        expected |= {
            f"tokens_{length}": tokens.numpy(),
            f"positions_{length}": positions[None].numpy(),
            f"logits_{length}": logits.numpy(),
            f"cos_{length}": phases.cos.numpy(),
            f"sin_{length}": phases.sin.numpy(),
        }
    np.savez(directory / EXPECTED, **expected)


def spread_positions(context_length: int) -> Int[Tensor, " positions"]:
    """At most `TOKENS` positions of a context: the first, ever sparser ones, and the last; tokens see all distances."""
    if context_length <= TOKENS:
        return torch.arange(context_length)
    spread = np.geomspace(1, context_length, TOKENS - SCORED - 1).round().astype(int) - 1
    return torch.from_numpy(np.union1d(spread, np.arange(context_length - SCORED, context_length)))


def verify(directory: Path) -> Verified:
    """Compare an exported directory, as stock transformers loads it in a fresh process, with what was exported.

    Raises:
        UserError: it is no exported directory, transformers cannot load it, or what it computes is something else.
    """
    if not (directory / EXPECTED).is_file() or not (directory / CONFIG).is_file():
        raise UserError(f"{directory} is no directory that `lit-pi export` wrote: it has no {EXPECTED} or no {CONFIG}")
    config = json.loads((directory / CONFIG).read_text())
    expected = np.load(directory / EXPECTED)
    _check_forms(directory, config, int(expected["max_position_embeddings"]))
    found = _stock(directory)
    tolerance = LONGROPE_TOLERANCE if config["rope_parameters"]["rope_type"] == "longrope" else TOLERANCE
    lengths = expected["context_lengths"].tolist()
    difference = max(_compare(directory, length, expected, found, tolerance) for length in lengths)
    return Verified(lengths, difference, tolerance)


def _check_forms(directory: Path, config: Mapping[str, Any], max_position_embeddings: int) -> None:
    """Whether readers of each form of the config see the same."""
    older = older_form(config["rope_parameters"])
    for name, value in {**older, "max_position_embeddings": max_position_embeddings}.items():
        if config.get(name) != value:
            raise UserError(
                f"{directory / CONFIG} says {name} {json.dumps(config.get(name))}, and {json.dumps(value)} was "
                "exported or is what its rope_parameters say: export again instead of editing it"
            )


def _stock(directory: Path) -> dict[str, NDArray]:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "stock.npz"
        done = subprocess.run(
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
    for name in ("cos", "sin"):
        theirs, ours = (torch.from_numpy(side[f"{name}_{length}"]) for side in (found, expected))
        if theirs.shape != ours.shape or differs(theirs, ours, position_ids):
            raise UserError(
                f"{directory} rotates otherwise than the model it was exported from: {name} differs within the first "
                f"{length} positions; was its {CONFIG} edited? Export it again"
            )
    logits = expected[f"logits_{length}"]
    difference = float(np.abs(found[f"logits_{length}"] - logits).max() / max(1.0, float(np.abs(logits).max())))
    if not difference <= tolerance:
        raise UserError(
            f"{directory} computes other logits than the model it was exported from: at positions up to {length} they "
            f"differ by {difference:.2g} of the largest, and {tolerance:g} is allowed; export it again"
        )
    return difference
