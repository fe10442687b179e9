"""The prompts that a model has read, and what followed them, for decoding with a cache."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import DynamicCache

from lit_pi.models.attention.masks import Tokens


class Past:
    """Keys and values of every token read, where the tokens stand, and which of them are padding.

    Prompts are padded on the right: causal attention is then exact without a mask while they are read, and only what
    follows has to look past the padding.

    Args:
        lengths: tokens of each prompt.
        columns: tokens of the prompts with padding.
        new: tokens that may follow, at most.
        context_length: tokens that the positions stand for; fixed, so that keys in the cache keep their angles.

    Attributes:
        position_ids: place of each token in its row, in tokens.
    """

    def __init__(self, lengths: Int[Tensor, " batch"], columns: int, new: int, context_length: int) -> None:
        # Without the config, by whose windows the cache would forget: padding is no part of a window.
        self.cache = DynamicCache()
        self.context_length = context_length
        lengths = lengths[:, None]
        places = torch.arange(columns + new, device=lengths.device)
        follows = places >= columns
        self.position_ids: Int[Tensor, "batch seq"] = torch.where(follows, places - columns + lengths, places)
        self._real: Bool[Tensor, "batch seq"] = follows | (places < lengths)
        self._padded = bool((lengths < columns).any())

    @property
    def read(self) -> int:
        """Tokens read so far, with padding."""
        return int(self.cache.get_seq_length())

    def tokens(self, places: slice) -> Tokens:
        """The tokens up to the last of those at `places`, of which these are read now."""
        if places.start == 0 or not self._padded:
            return Tokens()
        real = self._real[:, : places.stop]
        # Padding sees only itself, and a window counts the tokens of the row alone.
        return Tokens(document_ids=real.int() - 1, places=self.position_ids[:, : places.stop])
