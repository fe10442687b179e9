"""A tokenizer of one's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lit_pi.data.corpora import Corpus, Document, Split
from lit_pi.data.tokenizer import FILE
from lit_pi.errors import UserError, printable
from lit_pi.files import partial_of, put, remove
from lit_pi.ranges import Count, Range, in_range

SPECIAL_TOKENS = ["<s>", "</s>"]
LEAST = 256 + len(SPECIAL_TOKENS)
"""Tokens of bytes and the special ones."""


@in_range
def train_tokenizer(
    corpus: Corpus,
    output: Path,
    vocabulary_size: Annotated[int, Range(LEAST, 2**24)] = 32_000,
    split: Split = "train",
    max_bytes: Count | None = None,
    split_digits: bool = True,
) -> None:
    """Train a byte-level BPE tokenizer and save it in Hugging Face format.

    Any text can be written with it and read back unchanged. `<s>` is token 0 and `</s>` token 1.

    Args:
        corpus: the documents to train on.
        output: directory to save to, which must not hold a tokenizer yet.
        vocabulary_size: number of tokens, those of bytes and the two special ones included; at least 258.
        split: the split of the corpus to train on.
        max_bytes: train on the first documents of so many UTF-8 bytes together; None for all.
        split_digits: make every digit a token, as LLaMA does.

    Raises:
        UserError: the vocabulary is too small, there is no text, or `output` already holds a tokenizer.
    """
    if (output / FILE).exists():
        raise UserError(f"{output} already holds a tokenizer: name another directory, or delete it")
    with _whole_in(output) as partial:
        said = _trained(corpus, partial, vocabulary_size, split, max_bytes, split_digits)
    print(f"{said}: {printable(str(output))}")


@contextmanager
def _whole_in(output: Path) -> Iterator[Path]:
    """Yield a folder whose files come to stand in a directory once all are written; what fails leaves nothing."""
    made = [folder for folder in (output, *output.parents) if not folder.exists()]
    partial = partial_of(output / "tokenizer")
    try:
        output.mkdir(parents=True, exist_ok=True)  # before the work, for transformers would write nothing into a file
        yield partial
        for file in sorted(partial.iterdir(), key=lambda file: file.name == FILE):
            put(file, output / file.name)
        remove(partial)
    except BaseException:
        remove(partial)
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def _trained(
    corpus: Corpus, output: Path, vocabulary_size: int, split: Split, max_bytes: int | None, split_digits: bool
) -> str:
    """Train and save, and say what came of it."""
    backend = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = [pre_tokenizers.Digits(individual_digits=True)] if split_digits else []
    backend.pre_tokenizer = pre_tokenizers.Sequence([*digits, byte_level])
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size, special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet, show_progress=True
    )
    texts = _Texts(corpus, split, max_bytes)
    backend.train_from_iterator(texts, trainer)
    if not texts.bytes:
        raise UserError(f"there is no text in split {split!r} of {corpus.name}: add documents")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=False
    )
    tokenizer.save_pretrained(output)
    return f"Tokenizer of {len(tokenizer):,} tokens, trained on {texts.bytes:,} bytes"


class _Texts:
    """The texts of a corpus, and how many bytes of them were read."""

    def __init__(self, corpus: Corpus, split: Split, max_bytes: int | None) -> None:
        self.corpus = corpus
        self.split = split
        self.max_bytes = max_bytes
        self.bytes = 0

    def __iter__(self) -> Iterator[str]:
        for document in self.corpus.documents(self.split):
            if self.max_bytes is not None and self.bytes >= self.max_bytes:
                return
            if isinstance(document, Document) and document.text:
                self.bytes += len(document.text.encode())
                yield document.text
