"""Text from a model in memory."""

from typing import overload

from lightning.fabric.utilities import move_data_to_device
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lit_pi.data.generation import GenerationBatches, PromptEncoder, PromptSample, continuation, decoding_of
from lit_pi.data.tokenizer import check_tokenizer
from lit_pi.errors import UserError
from lit_pi.models import LanguageModel
from lit_pi.models.decoding import generation
from lit_pi.models.sources.in_memory import InMemory
from lit_pi.ranges import Count, NotNegative, Seed, Share, Tokens, in_range


@overload
def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompt: str, max_new_tokens: int = ..., *,
    temperature: float = ..., top_p: float = ..., seed: int = ..., batch_size: int = ...,
) -> str: ...  # fmt: skip
@overload
def generate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompt: list[str], max_new_tokens: int = ..., *,
    temperature: float = ..., top_p: float = ..., seed: int = ..., batch_size: int = ...,
) -> list[str]: ...  # fmt: skip
@in_range
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompt: str | list[str],
    max_new_tokens: Tokens = 256,
    *,
    temperature: NotNegative = 0.0,
    top_p: Share = 1.0,
    seed: Seed = 0,
    batch_size: Count = 1,
) -> str | list[str]:
    """Continue a text, or several, as `lit-pi predict` does: each as it would be alone, right under every strategy.

    A prompt's context length, itself and `max_new_tokens`, is settled before its first token, so that decoding token by
    token equals a full pass. The model is used where it is, and stays as it is.

    Args:
        model: a causal language model of transformers, extended or not.
        tokenizer: its tokenizer.
        prompt: a text, continued as it stands after `<bos>` where the tokenizer has it; or a list of them.
        max_new_tokens: tokens to generate at most; the tokenizer's end-of-text token ends a text earlier.
        temperature: divides the logits; 0 takes the most likely token each time.
        top_p: samples from the fewest tokens whose probabilities sum to at least this.
        seed: chooses the tokens that are drawn.
        batch_size: prompts of one forward.

    Returns:
        What follows the prompt, without it; a list of texts for a list of prompts.

    Raises:
        UserError: an option is out of its range, or a prompt is empty and the tokenizer has no `<bos>`.
    """
    check_tokenizer(tokenizer)
    texts = [prompt] if isinstance(prompt, str) else list(prompt)
    decoding = decoding_of(tokenizer, max_new_tokens, temperature, top_p, tokenizer.eos_token_id is not None)
    tokens = list(PromptEncoder(tokenizer).prompts(texts, "Encoding prompts"))
    if not all(map(len, tokens)):
        raise UserError("a prompt is empty, and the tokenizer has no <bos> to start from: give it text")
    samples = [PromptSample(ids, len(ids) + max_new_tokens, seed, index) for index, ids in enumerate(tokens)]
    source = InMemory(model)
    llm, rope = source.build()
    own = LanguageModel(llm, source.position, rope).eval()
    found = [""] * len(texts)
    batches = GenerationBatches("generate", samples, decoding, batch_size, 1)
    for index in range(len(batches)):
        batch = move_data_to_device(batches[index], source.device)
        done = generation.generate(own, batch)
        for row, place in enumerate(batch.documents.tolist()):
            if place >= 0:
                new = done.token_ids[row, : int(done.lengths[row])].tolist()
                found[place] = continuation(tokenizer, tokens[place].tolist(), new)
    return found[0] if isinstance(prompt, str) else found
