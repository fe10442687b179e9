"""Texts to continue, from files."""

from typing import Literal

from transformers import PreTrainedTokenizerFast

from lit_pi.batches import Decoding
from lit_pi.data.corpora.corpus import Document
from lit_pi.data.corpora.text_files import Files, TextFiles
from lit_pi.data.generation import GenerationBatches, PromptEncoder, PromptSample, decoding_of
from lit_pi.errors import UserError
from lit_pi.ranges import BatchSize, NotNegative, Seed, Share, Tokens, in_range


class Prompts:
    """Texts that `lit-pi predict` continues, each as it stands, after `<bos>` where the tokenizer has it.

    Args:
        files: a pattern, or a list of them, in the formats of `TextFiles`: a text file is a prompt, as is a line or
            row of the others.
        text_field: key or column of the prompt in JSONL and Parquet files.
        encodings: encodings of plain text files, tried in order.
        undecodable: a prompt in none of the encodings can `stop` the command, be left out (`drop`), or be read with
            U+FFFD in place of what is broken (`replace`).
        max_new_tokens: how many tokens to generate at most.
        temperature: divides the logits; 0 takes the most likely token each time.
        top_p: samples from the fewest tokens whose probabilities sum to at least this.
        seed: chooses the samples; a prompt's depend neither on the batch size nor on the number of devices.
        stop_at_eos: whether the tokenizer's end-of-text token ends a completion.
        batch_size: how many prompts are continued together.

    Raises:
        UserError: the batch size or the seed is out of its range.
    """

    @in_range
    def __init__(
        self,
        files: Files,
        text_field: str = "text",
        encodings: list[str] | None = None,
        undecodable: Literal["stop", "drop", "replace"] = "stop",
        max_new_tokens: Tokens = 256,
        temperature: NotNegative = 0.0,
        top_p: Share = 1.0,
        seed: Seed = 0,
        stop_at_eos: bool = True,
        batch_size: BatchSize = 1,
    ) -> None:
        self.corpus = TextFiles(test=files, text_field=text_field, encodings=encodings, undecodable=undecodable)
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.top_p = top_p
        self.seed = seed
        self.stop_at_eos = stop_at_eos
        self.batch_size = batch_size
        self.ids: list[str] = []
        self.samples: list[PromptSample] = []
        self.decoding = Decoding(max_new_tokens)

    def prepare(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Read and encode the prompts.

        Raises:
            UserError: a file cannot be read, a prompt has no token, or there is none.
        """
        self.decoding = decoding_of(tokenizer, self.max_new_tokens, self.temperature, self.top_p, self.stop_at_eos)
        documents = [found for found in self.corpus.documents("test") if isinstance(found, Document)]
        if chats := [document.id for document in documents if document.chat]:
            raise UserError(f"the prompt {chats[0]} is a list of messages: name a text_field that holds text")
        if not documents:
            raise UserError(f"the files of data.predict ({self.corpus.files['test']}) hold no prompt: add text")
        prompts = PromptEncoder(tokenizer).prompts([document.text for document in documents], "Encoding prompts")
        self.ids, self.samples = [document.id for document in documents], []
        for index, (name, tokens) in enumerate(zip(self.ids, prompts, strict=True)):
            if not len(tokens):
                raise UserError(f"the prompt {name} is empty, and the tokenizer has no <bos> to start from: remove it")
            self.samples.append(PromptSample(tokens, len(tokens) + self.max_new_tokens, self.seed, index))

    def batches(self, world_size: int) -> GenerationBatches:
        """All prompts."""
        return GenerationBatches("predict", self.samples, self.decoding, self.batch_size, world_size)
