"""Proof that the live model, at its real size and with its own weights, computes what stock transformers computes."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lit_pi.callbacks.probing import without_trace
from lit_pi.models.equality.checks import check_weights
from lit_pi.module import LitLlama


class StockEquality(Callback):
    """Compares the live model's losses with those of stock transformers, and stops where they differ.

    Under the positions of the model's own config, in a row of at most 128 tokens, before anything is trained or
    measured: after loading, resuming, sharding and adapting. That models of its kind are computed alike, beyond windows
    and contexts too, was proven by a small twin in float32 when it was built. Results record both.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the model."""
        self._check(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the model, where training has not yet begun."""
        self._check(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the model."""
        self._check(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the model."""
        self._check(trainer, pl_module)

    def _check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, LitLlama) and pl_module.model is not None
        if "weights" in pl_module.equality:
            return
        root = trainer.strategy.model if isinstance(trainer.strategy, FSDPStrategy) else pl_module.model
        assert root is not None
        with without_trace(pl_module), trainer.strategy.precision_plugin.forward_context():
            found = check_weights(pl_module.model, root, pl_module.compute_dtype)
        pl_module.equality["weights"] = found
        rank_zero_info(
            f"Stock transformers: losses of {found.lengths[0]} tokens are within {found.difference:.1e} nats in "
            f"{found.dtype}; those of a small twin in float32, beyond windows and contexts, within "
            f"{pl_module.equality['twin'].difference:.1e}."
        )
