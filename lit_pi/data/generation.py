"""Prompts in batches, and how texts become prompts."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from lit_pi.batches import IGNORE, Decoding, GenerationBatch
from lit_pi.data.ranks import share_out
from lit_pi.data.tokenizer import plain_backend
from lit_pi.errors import UserError
from lit_pi.progress import progress

AT_ONCE = 64
"""Texts encoded together."""
BEFORE = 8
"""Tokens of a prompt beside which what follows is read as text."""


class PromptSample(NamedTuple):
    """A prompt to continue.

    Attributes:
        tokens: ids of the prompt.
        context_length: tokens that its positions stand for: prompt and new ones.
        seed: chooses the tokens that are sampled for it.
        document: number of its text, so that each text draws on its own.
        target: the right continuation, if there is one.
    """

    tokens: NDArray[np.int64]
    context_length: int
    seed: int = 0
    document: int = 0
    target: NDArray[np.int64] | None = None


class GenerationBatches(Dataset[GenerationBatch]):
    """Prompts in batches of about one length, the longest first; every `world_size` consecutive ones are as large.

    Args:
        name: name of the evaluation.
        samples: prompts; batches name them by their place here.
        decoding: how to continue.
        batch_size: prompts of a batch.
        world_size: ranks that share them.
    """

    def __init__(
        self, name: str, samples: Sequence[PromptSample], decoding: Decoding, batch_size: int, world_size: int
    ) -> None:
        self.name = name
        self.samples = samples
        self.decoding = decoding
        order = sorted(range(len(samples)), key=lambda index: -len(samples[index].tokens))
        self.planned = list(share_out(order, -1, batch_size, world_size))

    def __len__(self) -> int:
        """Batches of all ranks, a multiple of the world size."""
        return len(self.planned)

    def __getitem__(self, index: int) -> GenerationBatch:
        """Prompts, padded with token 0; a row that only fills up repeats one and is not continued."""
        indices = self.planned[index]
        real = next((number for number in indices if number >= 0), 0)
        samples = [self.samples[number if number >= 0 else real] for number in indices]
        targets = [torch.from_numpy(sample.target) for sample in samples if sample.target is not None]
        return GenerationBatch(
            evaluation=self.name,
            input_ids=pad_sequence([torch.from_numpy(sample.tokens) for sample in samples], batch_first=True),
            lengths=torch.tensor([len(sample.tokens) for sample in samples]),
            context_lengths=torch.tensor([sample.context_length for sample in samples]),
            documents=torch.tensor(indices),
            decoding=self.decoding,
            draws=torch.stack([self._draws(sample) for sample in samples]) if self.decoding.temperature else None,
            targets=pad_sequence(targets, batch_first=True, padding_value=IGNORE) if targets else None,
        )

    def _draws(self, sample: PromptSample) -> torch.Tensor:
        generator = np.random.default_rng([sample.seed, sample.document])
        return torch.from_numpy(generator.random(self.decoding.max_new_tokens, np.float32))


def decoding_of(
    tokenizer: PreTrainedTokenizerFast,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    stop_at_eos: bool,
) -> Decoding:
    """Put together how to continue.

    Raises:
        UserError: the tokenizer has no token that ends a text.
    """
    if stop_at_eos and tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer {tokenizer.name_or_path} has no token that ends a text: set stop_at_eos: false")
    return Decoding(max_new_tokens, temperature, top_p, (tokenizer.eos_token_id,) if stop_at_eos else ())


class PromptEncoder:
    """Encodes texts whole, special tokens in them as text, whatever earlier calls have set in the tokenizer.

    Args:
        tokenizer: any tokenizer of the `tokenizers` library.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._backend = plain_backend(tokenizer)
        self._bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]

    def prompts(self, texts: Sequence[str], title: str) -> Iterator[NDArray[np.int64]]:
        """Token ids of texts, each after `<bos>` where the tokenizer has it.

        Args:
            texts: texts to encode.
            title: title of the progress bar.
        """
        return (np.array([*self._bos, *encoding.ids], np.int64) for encoding in self._encodings(texts, title))

    def _encodings(self, texts: Sequence[str], title: str) -> Iterator[Encoding]:
        for start in progress(title, range(0, len(texts), AT_ONCE)):
            yield from self._backend.encode_batch(texts[start : start + AT_ONCE], add_special_tokens=False)


def continuation(tokenizer: PreTrainedTokenizerFast, prompt: Sequence[int], new: Sequence[int]) -> str:
    """The text of tokens that follow a prompt, with the space that some tokenizers drop at a text's start.

    Args:
        tokenizer: the tokenizer that encoded the prompt.
        prompt: the prompt's tokens.
        new: the tokens that follow; special ones are left out.
    """
    before = list(prompt[-BEFORE:])
    decode = tokenizer.backend_tokenizer.decode
    return decode([*before, *new]).removeprefix(decode(before))
