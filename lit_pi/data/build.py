"""From documents to a token store: once, in parallel, and safe to kill."""

import hashlib
import json
import os
from array import array
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from lit_pi.data.corpora.corpus import Corpus, Document, Dropped, Split
from lit_pi.data.cutting import cutter, whole
from lit_pi.data.store import FORMAT, Batch, StoreWriter, TokenStore
from lit_pi.data.tokenizer import BYTES, first_tokens, load_tokenizer, plain_backend, tokenizer_fingerprint
from lit_pi.errors import DISK_FULL, UserError
from lit_pi.files import partial_of, put, remove
from lit_pi.progress import progress

CORES = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 16)
BATCH_CHARACTERS = 500_000
"""Text of one batch; while it is encoded, about 100 bytes of memory for each character."""
CHARACTERS_UNDER_WAY = 3 * BATCH_CHARACTERS * CORES
"""Text that is read ahead."""
DOCUMENT_CHARACTERS = 100
"""Characters that a document counts for beside its text."""


def cache_directory() -> Path:
    """The folder for everything that lit_pi builds: `$LIT_PI_CACHE`, or `~/.cache/lit_pi`."""
    return Path(os.environ.get("LIT_PI_CACHE") or "~/.cache/lit_pi").expanduser()


def open_store(
    corpus: Corpus, split: Split, tokenizer: PreTrainedTokenizerFast, *, show_progress: bool = True
) -> TokenStore:
    """The tokens of a split, built when they are not in the cache yet.

    No special tokens are added, and text that looks like one is encoded as text. Of several processes that ask at
    once, one builds and the others wait. A build that was killed continues after its last complete batch, and gives
    the same bytes.

    Args:
        corpus: the documents.
        split: the split of the corpus.
        tokenizer: the tokenizer whose backend encodes them.
        show_progress: show a progress bar on stderr when building takes long.

    Raises:
        UserError: documents cannot be read, there are none, the cache cannot be written, or the disk is full.
    """
    target, description = _place(corpus, split, tokenizer)
    if not target.exists():
        with _locked(target):
            if not target.exists():
                _build(corpus, split, tokenizer, description, target, show_progress)
    return TokenStore(target)


def store_directory(corpus: Corpus, split: Split, tokenizer: PreTrainedTokenizerFast) -> Path:
    """The folder where the store of a split is, or would be built.

    Raises:
        UserError: the corpus has no such split.
    """
    return _place(corpus, split, tokenizer)[0]


def _place(corpus: Corpus, split: Split, tokenizer: PreTrainedTokenizerFast) -> tuple[Path, dict[str, Any]]:
    """Directory of a store, and the constant part of its manifest."""
    fingerprints = [FORMAT, corpus.fingerprint(split), tokenizer_fingerprint(tokenizer)]
    description = {
        "corpus": {"name": corpus.name, "split": split, "fingerprint": fingerprints[1]},
        "tokenizer": {"name": tokenizer.name_or_path, "fingerprint": fingerprints[2]},
        "vocabulary_size": len(tokenizer),
        "dtype": "uint16" if len(tokenizer) <= 2**16 else "uint32",
    }
    digest = hashlib.sha256(json.dumps(fingerprints, sort_keys=True).encode()).hexdigest()[:16]
    return cache_directory() / "stores" / f"{corpus.name}-{split}-{digest}", description


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    lock = FileLock(f"{target}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise UserError(
            f"cannot write to the cache {target.parent} ({error.strerror}): set LIT_PI_CACHE to a folder of yours"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _build(
    corpus: Corpus,
    split: Split,
    tokenizer: PreTrainedTokenizerFast,
    description: dict[str, Any],
    target: Path,
    shown: bool,
) -> None:
    partial = partial_of(target)  # which a later build continues
    writer = StoreWriter(partial, description)
    title = f"Tokenizing {corpus.name}, {split}"
    encoder = _Encoder(corpus, tokenizer, description["tokenizer"]["fingerprint"], np.dtype(description["dtype"]))
    try:
        with writer, progress(title, shown=shown) as bar:
            rest = islice(corpus.documents(split), writer.manifest["documents"]["read"], None)
            for batch in _encoded(encoder, _batches(rest)):
                writer.append(batch)
                bar.set_description_str(f"{title}: {_counts(writer.manifest)}", refresh=False)
                bar.update()
            writer.finish()
        if not writer.manifest["documents"]["kept"]:
            raise UserError(f"there are no documents in split {split!r} of {corpus.name}: add some that hold text")
        put(partial, target)
    except UserError:
        # Whatever mends it also changes the fingerprint, so nobody would continue this build.
        remove(partial)
        raise
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise UserError(
            f"the disk is full at {partial}: free space there, or set LIT_PI_CACHE to a folder elsewhere, and run "
            f"again; the {writer.manifest['documents']['read']:,} documents done so far are kept there"
        ) from error


def _batches(documents: Iterable[Document | Dropped]) -> Iterator[tuple[int, list[Document | Dropped]]]:
    """Consecutive documents of up to `BATCH_CHARACTERS`, or one that is longer, and their weight."""
    batch: list[Document | Dropped] = []
    total = 0
    for document in documents:
        weight = DOCUMENT_CHARACTERS
        weight += len(document.prompt) + len(document.text) if isinstance(document, Document) else 0
        if batch and total + weight > BATCH_CHARACTERS:
            yield total, batch
            batch, total = [], 0
        batch.append(document)
        total += weight
    if batch:
        yield total, batch


def _encoded(encoder: "_Encoder", batches: Iterable[tuple[int, list[Document | Dropped]]]) -> Iterator[Batch]:
    """The batches as tokens, in order, with up to `CHARACTERS_UNDER_WAY` of them being encoded."""
    pending: deque[tuple[float, Future[Batch]]] = deque()
    with _one_thread_a_call(), ThreadPoolExecutor(CORES) as pool:
        for characters, batch in batches:
            weight = min(characters, encoder.characters_at_once)
            # What is encoded is small, and only waits for its turn.
            while encoding := {future: other for other, future in pending if not future.done()}:
                if weight + sum(encoding.values()) <= CHARACTERS_UNDER_WAY:
                    break
                wait(encoding, return_when=FIRST_COMPLETED)
            while pending and pending[0][1].done():
                yield pending.popleft()[1].result()
            pending.append((weight, pool.submit(encoder.encode, batch)))
        while pending:
            yield pending.popleft()[1].result()


@contextmanager
def _one_thread_a_call() -> Iterator[None]:
    """Batches side by side beat a batch spread over the cores, whose longest document the others wait for."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


class _Encoder:
    """Turns documents into token ids with a copy of the tokenizer's backend, so that its settings stay its own."""

    def __init__(self, corpus: Corpus, tokenizer: PreTrainedTokenizerFast, fingerprint: str, dtype: np.dtype) -> None:
        self.corpus = corpus
        self.backend = plain_backend(tokenizer)
        self.cut = cutter(self.backend)
        self.characters_at_once = float("inf") if self.cut is whole else BATCH_CHARACTERS
        self.vocabulary_size = len(tokenizer)
        self.dtype = dtype
        self.bytes_are_ids = fingerprint == tokenizer_fingerprint(load_tokenizer(BYTES))

    def encode(self, items: list[Document | Dropped]) -> Batch:
        """Token ids of the documents among the items.

        Raises:
            UserError: a token lies outside the vocabulary.
        """
        documents = [item for item in items if isinstance(item, Document)]
        documents = self.corpus.limited(documents, partial(first_tokens, self.backend))
        dropped = Counter(item.reason for item in items if isinstance(item, Dropped))
        kept, tokens, prompts = [], [], []
        prompt_ids = self._prompt_ids(documents)
        for document, prompt, text in zip(documents, prompt_ids, self._ids([d.text for d in documents]), strict=True):
            ids = np.concatenate((prompt, text)) if len(prompt) else text
            if not len(text):
                dropped["empty"] += 1
                continue
            if (largest := int(ids.max())) >= self.vocabulary_size:
                raise UserError(
                    f"document {document.id} has token {largest}, but the tokenizer's vocabulary ends at "
                    f"{self.vocabulary_size - 1}: name a tokenizer whose ids have no gaps"
                )
            kept.append(document)
            tokens.append(ids.astype(self.dtype))
            prompts.append(len(prompt))
        return Batch(
            ids=[document.id for document in kept],
            tokens=np.concatenate(tokens) if tokens else np.empty(0, self.dtype),
            lengths=np.array([len(ids) for ids in tokens], np.int64),
            document_bytes=np.array([len((d.prompt + d.text).encode()) for d in kept], np.int64),
            prompt_tokens=np.array(prompts, np.int64),
            sources=[document.source for document in kept],
            dropped=dropped,
            cut=Counter(part for document in kept for part in document.cut),
        )

    def _prompt_ids(self, documents: list[Document]) -> Iterable[NDArray[np.unsignedinteger]]:
        if any(document.prompt for document in documents):
            return self._ids([document.prompt for document in documents])
        return repeat(np.empty(0, np.uint32), len(documents))

    def _ids(self, texts: list[str]) -> Iterator[NDArray[np.unsignedinteger]]:
        if self.bytes_are_ids:
            return (np.frombuffer(text.encode(), np.uint8) for text in texts)
        if len(texts) == 1:
            pieces = self.cut(texts[0], BATCH_CHARACTERS)
            return iter([np.concatenate([ids for piece in pieces for ids in self._encoded_together([piece])])])
        return self._encoded_together(texts)

    def _encoded_together(self, texts: list[str]) -> Iterator[NDArray[np.unsignedinteger]]:
        encodings = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        # Three times as fast as np.array.
        return (np.frombuffer(array("I", encoding.ids), np.uint32) for encoding in encodings)


def _counts(manifest: dict[str, Any]) -> str:
    return (
        f"{manifest['documents']['read']:,} documents, {manifest['bytes'] / 1e6:,.1f} MB of text, "
        f"{manifest['tokens']:,} tokens"
    )
