"""Floating-point operations that a training step has to do."""

from torch import nn

from lit_pi.models.language_model import LanguageModel

CONVENTION = "6N + 6LhqT a token: matrix products and causal attention at half; nothing computed again is credited"
"""The convention by which `Flop` counts, as it goes into results."""


class Flop:
    """Operations of a forward and a backward pass, a multiplication and an addition counted as two.

    A matrix costs 2 a weight and token forward, as many for the gradient of its input, and as many for its own where
    it trains. A query costs `4 * heads * head_dim` a layer for each key it sees, and twice that backward.

    Args:
        model: the model, with its adapter if it has one.
    """

    def __init__(self, model: LanguageModel) -> None:
        matrices = [module.weight for module in model.llm.modules() if isinstance(module, nn.Linear)]
        self.per_token = sum(weight.numel() * (6 if weight.requires_grad else 4) for weight in matrices)
        heads = model.llm.config.num_attention_heads
        self.per_seen_key = 12 * len(model.decoder_layers) * heads * model.head_dim

    def step(self, tokens: int, seen_keys: int) -> int:
        """Count the operations of a step over so many tokens.

        Args:
            tokens: number of tokens in all sequences.
            seen_keys: keys that queries see, summed over the tokens: one more than its position for each.
        """
        return self.per_token * tokens + self.per_seen_key * seen_keys
