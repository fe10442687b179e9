"""Models and their tokenizers, from disk and back."""

from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lit_pi.data.model_tokenizer import choose_tokenizer, say_what_is_missing
from lit_pi.data.tokenizer import check_tokenizer
from lit_pi.errors import UserError
from lit_pi.export.origin import Origin
from lit_pi.export.writing import write_files, write_verified
from lit_pi.models import LanguageModel, Pretrained
from lit_pi.models.attention.rules import caps_scores
from lit_pi.models.sources.in_memory import InMemory
from lit_pi.positions import PositionStrategy
from lit_pi.python.extending import extend


class Loaded(NamedTuple):
    """A model and its tokenizer, as `model, tokenizer = lit_pi.load(...)` takes them.

    Attributes:
        model: a causal language model of transformers, in evaluation mode on the CPU.
        tokenizer: its tokenizer, of the `tokenizers` library.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast


def load(
    path: str | Path,
    position: PositionStrategy | None = None,
    *,
    tokenizer: str | None = None,
    dtype: torch.dtype | None = None,
    original_context: int | None = None,
) -> Loaded:
    """Load a model and its tokenizer; `model.to("cuda")` moves it as any model of transformers.

    Args:
        path: a directory in Hugging Face format, a `.gguf` file, the id of a model on the hub, or a run directory of
            `lit-pi fit` or one of its checkpoints.
        position: how token positions become rotary angles (see `extend`); by default what the run was trained with,
            or what the directory's config says.
        tokenizer: `bytes`, a directory, a GGUF file, or an id on the hub; the model's own by default. Another one has
            to be of the model's vocabulary.
        dtype: dtype of the weights; the one they are stored in by default.
        original_context: tokens of context of pre-training, where the model's config does not say.

    Raises:
        UserError: nothing is there, it cannot be read, or it has no tokenizer, or not that one.
    """
    origin = Origin(str(path))
    if tokenizer is None and origin.tokenizer["name"] is None:
        raise UserError(f"there is no tokenizer in {path}: name one in `tokenizer`")
    words = choose_tokenizer(tokenizer, origin.tokenizer)
    say_what_is_missing(words)
    model, _ = Pretrained(origin.model, original_context).build(keep_dtype=True)
    # Built for lit_pi's own loops, which tell documents apart by themselves; transformers brings masks.
    # torch's own attention cannot cap scores, which transformers 5.17 does not know.
    torch_can = model._supports_sdpa and not caps_scores(model.config)
    model.set_attn_implementation("sdpa" if torch_can else "eager")
    if dtype is not None:
        model.to(dtype)  # type: ignore[arg-type]
    if (asked := position or origin.position) is not None:
        extend(model, asked, original_context=original_context)
    return Loaded(model.eval(), words)


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    directory: str | Path,
    *,
    target_context: int | None = None,
    max_shard_size: str = "5GB",
) -> Path:
    """Write a directory in Hugging Face format, with a model card, which counts only once stock transformers agrees.

    A fresh process that knows nothing of lit_pi loads it and has to compute the model's logits at short and long
    positions, as `lit-pi export` has it. `lit-pi export --check DIRECTORY` compares again later.

    Args:
        model: a causal language model of transformers, extended or not; it stays as it is.
        tokenizer: its tokenizer.
        directory: the directory to write, which must not exist yet.
        target_context: tokens of context that the model is for; by default what its strategy is made for.
        max_shard_size: largest size of a file of weights.

    Returns:
        The directory.

    Raises:
        UserError: transformers cannot express the strategy, or computes something else.
    """
    check_tokenizer(tokenizer)
    source = InMemory(model)
    llm, rope = source.build()
    own = LanguageModel(llm.cpu(), source.position, rope).eval()
    output = Path(directory)
    write_verified(
        output, lambda folder: write_files(own, deepcopy(tokenizer), folder, None, target_context, max_shard_size)
    )
    return output
