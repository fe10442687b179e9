"""Training sequences as tensors."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from lit_pi.batches import IGNORE, TrainingBatch, digested
from lit_pi.data.packing import Packing, cut
from lit_pi.data.store import TokenStore

SHAPES = 8
"""Different lengths that batches of single documents may be cut to."""


class Accounting(NamedTuple):
    """Counts of where tokens go: `tokens` are those learnt and those left out.

    Attributes:
        documents: documents in the sequences.
        sequences: sequences of `context_length` positions.
        tokens: tokens of the documents, `<bos>` and `<eos>` included.
        learnt: tokens that are the target of a position, in one pass.
        left_out: tokens that are never a target, by reason.
        padded: positions that hold no token.
    """

    documents: int
    sequences: int
    tokens: int
    learnt: int
    left_out: dict[str, int]
    padded: int


class Sequences(Dataset):
    """Sequences of `context_length` positions that together train on every token of a store once.

    A document is the stream `<bos> prompt text <eos>` (each where it has it). Its pieces cover it without overlap: a
    piece of n positions trains the n tokens that follow them, but not those of a prompt. Long documents are split,
    never cut off.

    Args:
        store: the documents.
        tokenizer: gives the ids of `<bos>` and `<eos>`.
        context_length: positions of a sequence (tokens).
        packing: `packed` fills a sequence with the rests of several documents, isolated from one another;
            `single` keeps one piece a sequence and pads it, longer ones first; `concatenated` cuts the stream of all
            documents, which then see each other, as older recipes did.
        documents: indices of the documents to take from the store; all by default.
    """

    def __init__(
        self,
        store: TokenStore,
        tokenizer: PreTrainedTokenizerBase,
        context_length: int,
        packing: Packing,
        documents: NDArray[np.int64] | None = None,
    ) -> None:
        self.store = store
        self.context_length = context_length
        self.isolated = packing != "concatenated"
        self.bos, self.eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.documents = documents
        self.pieces = cut(np.maximum(self._stream_lengths() - 1, 0), context_length, packing)

    def __len__(self) -> int:
        return len(self.pieces)

    def accounting(self) -> Accounting:
        """Count what is learnt and what is not."""
        lengths = self._stream_lengths()
        prompts = self._of_chosen(self.store.prompt_tokens)
        unlearnt = {
            "first of a document": int((lengths > 0).sum()),
            "of a prompt": int(np.where(prompts > 0, prompts + (self.bos is not None) - 1, 0).sum()),
        }
        tokens, positions = int(lengths.sum()), int(np.maximum(lengths - 1, 0).sum())
        return Accounting(
            documents=len(lengths),
            sequences=len(self),
            tokens=tokens,
            learnt=tokens - sum(unlearnt.values()),
            left_out=unlearnt,
            padded=len(self) * self.context_length - positions,
        )

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Input ids, targets, position ids and document ids `[seq]`; padding is a document of its own."""
        length = self.context_length
        row = {
            "input_ids": torch.zeros(length, dtype=torch.long),
            "targets": torch.full((length,), IGNORE),
            "position_ids": torch.zeros(length, dtype=torch.long),
            "document_ids": torch.full((length,), -1),
        }
        start = 0
        for number, (chosen, begin, n) in enumerate(self.pieces[index]):
            document = chosen if self.documents is None else int(self.documents[chosen])
            tokens = torch.from_numpy(self._stream(document, begin, begin + n + 1))
            place = slice(start, start + n)
            row["input_ids"][place] = tokens[:-1]
            row["targets"][place] = tokens[1:]
            if prompt := int(self.store.prompt_tokens[document]):
                read_only = max(prompt + (self.bos is not None) - begin - 1, 0)
                row["targets"][start : start + min(read_only, n)] = IGNORE
            row["position_ids"][place] = torch.arange(n) if self.isolated else torch.arange(start, start + n)
            row["document_ids"][place] = number if self.isolated else 0
            start += n
        return row

    def documents_of(self, index: int) -> list[str]:
        """Names of the documents that have a piece in a sequence."""
        numbers = (
            chosen if self.documents is None else int(self.documents[chosen]) for chosen, *_ in self.pieces[index]
        )
        return [self.store.document_id(number) for number in numbers]

    def _stream_lengths(self) -> NDArray[np.int64]:
        """Tokens of each document's stream."""
        return self._of_chosen(self.store.lengths) + (self.bos is not None) + (self.eos is not None)

    def _of_chosen(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        return values if self.documents is None else values[self.documents]

    def _stream(self, document: int, start: int, stop: int) -> NDArray[np.int64]:
        """Tokens `[start, stop)` of a document's stream."""
        tokens = self.store.document(document)
        offset = self.bos is not None
        inner = tokens[max(start - offset, 0) : stop - offset].astype(np.int64)
        before = [self.bos] if offset and start == 0 else []
        after = [self.eos] if self.eos is not None and stop - offset > len(tokens) else []
        return np.concatenate((np.array(before, np.int64), inner, np.array(after, np.int64)))


def collate(rows: list[dict[str, Tensor]], trim: bool = False) -> TrainingBatch:
    """Stack rows; document ids are left out where each row holds one document (right padding needs no mask).

    Args:
        rows: items of `Sequences`.
        trim: cut off positions that are padding in every row, down to one of `SHAPES` lengths.
    """
    batch: dict[str, Any] = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    if trim:
        seq = batch["input_ids"].shape[1]
        used = int((batch["document_ids"] >= 0).sum(dim=1).max())
        step = max(seq // SHAPES, 1)
        batch = {name: tensor[:, : min(-(-used // step) * step, seq)] for name, tensor in batch.items()}
    if int(batch["document_ids"].max()) == 0:
        batch["document_ids"] = None
    return digested(TrainingBatch(**batch))
