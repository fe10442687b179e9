"""`lit-pi export`: an extended model as a directory that stock transformers has been seen to load alike."""

import re
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from lit_pi.data.model_tokenizer import choose_tokenizer
from lit_pi.errors import UserError, printable
from lit_pi.export.model_card import Exported
from lit_pi.export.origin import Origin
from lit_pi.export.verification import Verified, verify
from lit_pi.export.writing import write_files, write_verified
from lit_pi.models import LanguageModel, Pretrained
from lit_pi.models.equality.checks import check_kind
from lit_pi.models.fingerprint import rotates_as
from lit_pi.models.sources.own_tokenizer import FIT
from lit_pi.positions import FromConfig, PositionStrategy
from lit_pi.ranges import Tokens, in_range
from lit_pi.runs import status

SIZE = r"[1-9][0-9]*(KB|MB|GB|TB|KiB|MiB|GiB)"
"""Sizes that transformers reads, none of them zero."""
Dtype = Literal["float32", "bfloat16", "float16"]


@in_range
def export(
    checkpoint: str | None = None,
    output: Path | None = None,
    position: PositionStrategy | None = None,
    original_context: Tokens | None = None,
    target_context: Tokens | None = None,
    tokenizer: str | None = None,
    dtype: Dtype | None = None,
    max_shard_size: str = "5GB",
    unfinished: bool = False,
    check: Path | None = None,
) -> None:
    """Write a model as a Hugging Face directory, and let stock transformers compute with it before it counts as done.

    A fresh process that knows nothing of lit_pi loads the directory; its logits and its cosines and sines at short
    and long positions must be the model's own. Otherwise nothing is left.

    Args:
        checkpoint: the run directory of a `fit`, one of its checkpoints, a directory in Hugging Face format, a GGUF
            file, or an id on the hub.
        output: directory to write, which must not exist yet.
        position: the strategy that turns token positions into rotary angles; by default the one that the checkpoint
            was trained with, or that the directory's config says.
        original_context: tokens of context in pre-training, needed by a strategy other than the config's own where the
            config does not say.
        target_context: tokens of context the model is for (`max_position_embeddings`); by default what the strategy
            is made for, or what the run trained at where it does not say.
        tokenizer: `bytes`, a directory in Hugging Face format, a GGUF file, or an id on the hub; the model's own by
            default.
        dtype: dtype of the exported weights; by default the one they have.
        max_shard_size: largest size of a file of weights, for example `5GB`.
        unfinished: export a run directory's newest checkpoint though its training has not ended.
        check: a directory that was exported before, to be checked; nothing is written.

    Raises:
        UserError: the training of the run has not ended, or transformers cannot express the strategy, or computes
            something else.
    """
    if check is not None:
        if checkpoint is not None or output is not None:
            raise UserError(
                "export got `check` beside `checkpoint` or `output`: it checks what was exported before, alone"
            )
        print(f"{printable(str(check))} is what was exported: {_said(verify(check))}")
        return
    if checkpoint is None or output is None:
        raise UserError("export needs the `checkpoint` and the `output` directory, or the directory to `check`")
    if not re.fullmatch(SIZE, max_shard_size.strip()):
        raise UserError(f"max_shard_size of export is {max_shard_size}: give a number and a unit, as 5GB or 500MB")
    if said := status.unfinished(Path(checkpoint).expanduser()):
        if not unfinished:
            raise UserError(
                f"{said}: continue it with --ckpt_path auto, or export its newest checkpoint as it is with --unfinished"
            )
        print(f"Warning: {said}.")
    origin = Origin(checkpoint)
    verified = write_verified(
        output,
        lambda folder: _write(
            origin, folder, position, original_context, target_context, tokenizer, dtype, max_shard_size
        ),
    )
    print(f"Stock transformers computes what the model does: {_said(verified)}")
    print("Exported:", printable(str(output)))


def _write(
    origin: Origin,
    directory: Path,
    position: PositionStrategy | None,
    original_context: int | None,
    target_context: int | None,
    tokenizer: str | None,
    dtype: Dtype | None,
    max_shard_size: str,
) -> Exported:
    """Write everything but the model card; the model's memory is free afterwards."""
    with Console().status(f"Loading {origin.model}"):
        llm, rope = Pretrained(origin.model, original_context).build(keep_dtype=True)
    if dtype is not None:
        llm.to(getattr(torch, dtype))
    check_kind(llm.config, position)
    model = LanguageModel(llm, position or origin.position or FromConfig(), rope).eval()
    _say_what_rotates(origin, model)
    target_context = target_context or origin.context_of(model.position, rope)
    loaded = _tokenizer(tokenizer, origin)
    return write_files(model, loaded, directory, origin, target_context, max_shard_size)


def _say_what_rotates(origin: Origin, model: LanguageModel) -> None:
    if origin.fingerprint is not None and not rotates_as(origin.fingerprint, model.rotations):
        print(
            f"The checkpoint was trained with {origin.trained_with}, and is exported with {model.position.describe()}: "
            "other rotations"
        )


def _tokenizer(asked: str | None, origin: Origin) -> PreTrainedTokenizerFast | None:
    if asked is None and origin.tokenizer["name"] is None:
        if origin.step is not None:
            raise UserError(
                f"{origin.model} does not say which tokenizer it was trained with, and there is no {FIT} of its run: "
                "name the tokenizer in `tokenizer`"
            )
        print("There is no tokenizer to export: name one in `tokenizer` if the directory needs it")
        return None
    return choose_tokenizer(asked, origin.tokenizer)


def _said(verified: Verified) -> str:
    lengths = ", ".join(f"{length:,}" for length in verified.context_lengths)
    return (
        f"at the ends of contexts of {lengths} tokens logits differ by at most {verified.difference:.1g} of the "
        f"largest ({verified.tolerance:g} is allowed)"
    )
