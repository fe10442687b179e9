"""From documents to a token store: once, in parallel, and safe to kill."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from transformers import PreTrainedTokenizerFast

from lit_pi.data.corpora.corpus import Corpus, Dropped, Split
from lit_pi.data.documents.duplicates import Hashed, hashed
from lit_pi.data.documents.encoding import DocumentEncoder
from lit_pi.data.store import FORMAT, Batch, StoreWriter, TokenStore
from lit_pi.data.tokenizer import tokenizer_fingerprint
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
    return _opened(target, description)


def built_store(corpus: Corpus, split: Split, tokenizer: PreTrainedTokenizerFast) -> TokenStore:
    """The tokens of a split that was built before.

    Raises:
        UserError: the corpus has no such split, it was not built, or the store is damaged.
    """
    target, description = _place(corpus, split, tokenizer)
    if not target.exists():
        raise UserError(f"there is no store {target} yet: run the same without --verify to build it")
    return _opened(target, description)


def _opened(target: Path, description: dict[str, Any]) -> TokenStore:
    store = TokenStore(target)
    if store.manifest["digest"] != description["digest"]:
        made_of = store.manifest["corpus"]
        raise UserError(
            f"{target} is not the store that belongs there, but one of {made_of['name']}, {made_of['split']}, under "
            "its name: move it back or delete it, and the right one is built"
        )
    return store


def _place(corpus: Corpus, split: Split, tokenizer: PreTrainedTokenizerFast) -> tuple[Path, dict[str, Any]]:
    """Directory of a store, and the constant part of its manifest."""
    template = tokenizer.chat_template if corpus.chats else None
    fingerprints = [FORMAT, corpus.fingerprint(split), tokenizer_fingerprint(tokenizer), corpus.duplicates, template]
    digest = hashlib.sha256(json.dumps(fingerprints, sort_keys=True).encode()).hexdigest()[:16]
    description = {
        "digest": digest,
        "corpus": {"name": corpus.name, "split": split, "fingerprint": fingerprints[1]},
        "tokenizer": {"name": tokenizer.name_or_path, "fingerprint": fingerprints[2]},
        "vocabulary_size": len(tokenizer),
        "dtype": "uint16" if len(tokenizer) <= 2**16 else "uint32",
    }
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
    description |= {"origin": corpus.origin(split)}
    writer = StoreWriter(partial, description)
    title = f"Tokenizing {corpus.name}, {split}"
    encoder = DocumentEncoder(corpus, tokenizer, np.dtype(description["dtype"]), BATCH_CHARACTERS)
    try:
        with writer, progress(title, shown=shown) as bar:
            # Those that were read before are hashed again, so that their duplicates are known.
            items = hashed(corpus.documents(split), corpus.duplicates)
            rest = islice(items, writer.manifest["documents"]["read"], None)
            for batch in _encoded(encoder, _batches(rest)):
                writer.append(batch)
                bar.set_description_str(f"{title}: {_counts(writer.manifest)}", refresh=False)
                bar.update()
            writer.finish()
        if not writer.manifest["documents"]["kept"]:
            raise UserError(f"there are no documents in split {split!r} of {corpus.name}: add some that hold text")
        put(partial, target)
        _say_left_out(corpus, split, writer.manifest["documents"])
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


def _batches(items: Iterable[Hashed | Dropped]) -> Iterator[tuple[int, list[Hashed | Dropped]]]:
    """Consecutive documents of up to `BATCH_CHARACTERS`, or one that is longer, and their weight."""
    batch: list[Hashed | Dropped] = []
    total = 0
    for item in items:
        weight = DOCUMENT_CHARACTERS
        weight += len(item.document.prompt) + len(item.document.text) if isinstance(item, Hashed) else 0
        if batch and total + weight > BATCH_CHARACTERS:
            yield total, batch
            batch, total = [], 0
        batch.append(item)
        total += weight
    if batch:
        yield total, batch


def _encoded(encoder: DocumentEncoder, batches: Iterable[tuple[int, list[Hashed | Dropped]]]) -> Iterator[Batch]:
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


def _say_left_out(corpus: Corpus, split: Split, documents: dict[str, Any]) -> None:
    """Say what a new store leaves out, and why; and which documents it holds more than once."""
    counts = [f"{number:,} {reason}" for reason, number in documents["dropped"].items()]
    if counts:
        rank_zero_info("Documents of %s, %s: left out are %s", corpus.name, split, ", ".join(counts))
    if documents["duplicates"]:
        rank_zero_info(
            "Documents of %s, %s: %d have the text of one before", corpus.name, split, documents["duplicates"]
        )


def _counts(manifest: dict[str, Any]) -> str:
    return (
        f"{manifest['documents']['read']:,} documents, {manifest['bytes'] / 1e6:,.1f} MB of text, "
        f"{manifest['tokens']:,} tokens"
    )
