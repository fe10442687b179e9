"""Writing an exported directory beside its place, and putting it there once stock transformers computes alike."""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from transformers import PreTrainedTokenizerFast

from lit_pi.errors import UserError
from lit_pi.export.directory import use_tokenizer, write_model
from lit_pi.export.model_card import Exported, model_card
from lit_pi.export.origin import Origin
from lit_pi.export.verification import Verified, save_expectations, verify
from lit_pi.files import beside
from lit_pi.models import LanguageModel
from lit_pi.seal import write_seal

MODEL_CARD = "README.md"


def write_verified(output: Path, write: Callable[[Path], Exported]) -> Verified:
    """Let a directory be written, verified, described and sealed; nothing is left of one that does not verify.

    Args:
        output: directory to write, which must not exist yet.
        write: writes everything but the model card into the directory it is given.

    Raises:
        UserError: the directory is there already, or stock transformers computes something else.
    """
    if output.exists():
        raise UserError(f"{output} is there already: name another `output`, or remove it")
    with beside(output) as partial:
        partial.mkdir()
        exported = write(partial)
        with Console(stderr=True).status("Computing with stock transformers in a fresh process"):
            verified = verify(partial)
        (partial / MODEL_CARD).write_text(model_card(output.name, exported, verified))
        write_seal(partial, unsealed=MODEL_CARD)
    return verified


def write_files(
    model: LanguageModel,
    tokenizer: PreTrainedTokenizerFast | None,
    directory: Path,
    origin: Origin | None,
    target_context: int | None,
    max_shard_size: str,
) -> Exported:
    """Write the model, its tokenizer, and what stock transformers has to agree with; the model is float32 afterwards.

    Args:
        model: the model to write, in the dtype it has.
        tokenizer: its tokenizer, written beside it; it is told the model's context.
        directory: where to write.
        origin: where the model comes from, if it was loaded for this.
        target_context: tokens of context that the model is for; by default what its strategy is made for.
        max_shard_size: largest size of a file of weights, for example `5GB`.

    Raises:
        UserError: transformers cannot express the strategy.
    """
    llm, rotations = model.llm, model.rotations
    if tokenizer is not None:
        use_tokenizer(model, tokenizer)
    config = write_model(model, directory, target_context, max_shard_size)
    context = target_context or max(config.max_position_embeddings, rotations.target_context)
    if tokenizer is not None:
        tokenizer.model_max_length = context
        tokenizer.save_pretrained(directory)
    stored = str(llm.dtype).removeprefix("torch.")
    with Console(stderr=True).status("Computing what transformers has to agree with"):
        save_expectations(model.float(), directory, context)
    return Exported(origin, model.position.describe(), model.rope, context, config.rope_parameters, stored)
