"""Windows of documents as batches of tensors."""

import numpy as np
import torch

from lit_pi.batches import IGNORE, ScoringBatch
from lit_pi.data.store import TokenStore
from lit_pi.evaluations.evaluation import ScoringBatches
from lit_pi.evaluations.perplexity.windows import Shape, Window


class WindowBatches(ScoringBatches):
    """The windows of a plan as tensors.

    Args:
        name: name of the evaluation.
        store: holds the documents.
        documents: indices in the store.
        lengths: tokens of each document that are measured.
        bos_token_id: `<bos>` of the tokenizer, used where a window has `<bos>`.
        planned: shape and windows of every batch.
    """

    def __init__(
        self,
        name: str,
        store: TokenStore,
        documents: np.ndarray,
        lengths: np.ndarray,
        bos_token_id: int | None,
        planned: list[tuple[Shape, tuple[Window, ...]]],
    ) -> None:
        self.name = name
        self.store = store
        self.documents = documents
        self.lengths = lengths
        self.bos_token_id = bos_token_id
        self.planned = planned

    def __len__(self) -> int:
        return len(self.planned)

    def __getitem__(self, index: int) -> ScoringBatch:
        """Windows, right-padded with token 0; a row that only fills up scores nothing."""
        shape, windows = self.planned[index]
        scored = torch.from_numpy(shape.scored())
        rows = torch.full((len(windows), shape.length + 1), IGNORE)
        for row, window in zip(rows, windows, strict=True):
            tokens = self._tokens(shape, window)
            row[: len(tokens)] = torch.from_numpy(tokens)
        input_ids = rows[:, :-1]
        return ScoringBatch(
            evaluation=self.name,
            input_ids=input_ids.clamp(min=0),
            lengths=(input_ids != IGNORE).sum(dim=1).clamp(min=1),
            scored=scored,
            targets=rows[:, scored + 1],
            spans=shape.spans(),
            documents=torch.tensor([window.document for window in windows]),
            begins=torch.tensor([window.begin - shape.bos for window in windows]),
        )

    def _tokens(self, shape: Shape, window: Window) -> np.ndarray:
        if window.document < 0:
            return np.empty(0, np.int64)
        end = min(window.begin + shape.length + 1 - shape.bos, int(self.lengths[window.document]))
        tokens = self.store.document(int(self.documents[window.document]))[window.begin : end].astype(np.int64)
        prefix = np.array([self.bos_token_id] if shape.bos else [], np.int64)
        return np.concatenate((prefix, tokens))
