"""Low-rank adapters: a frozen model learns through small matrices beside its own (Hu et al. 2021, arXiv 2106.09685)."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from lit_pi.errors import UserError
from lit_pi.models.language_model import LanguageModel
from lit_pi.models.sources.fitted import compared
from lit_pi.ranges import Count, Range, in_range

ATTENTION_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


class LoRA:
    """Trains `W + alpha / rank * B A` in place of W, and embeddings and norms themselves.

    Low ranks alone do not learn longer contexts; with embeddings and norms they nearly equal full fine-tuning (Chen et
    al. 2023, LongLoRA, arXiv 2309.12307, table 2), whose rank, alpha and target modules are the defaults.

    Args:
        rank: rows of A and columns of B.
        alpha: weight of the product B A, before it is divided by the rank.
        dropout: share of the adapters' inputs to drop.
        target_modules: names of the linear layers that get adapters.
        train_embeddings: train the input embeddings too (and the output layer where it is tied to them).
        train_norms: train the norms too.

    Raises:
        UserError: the rank or alpha is not positive.
    """

    @in_range
    def __init__(
        self,
        rank: Count = 8,
        alpha: Count = 16,
        dropout: Annotated[float, Range(0, 1, below=True)] = 0.0,
        target_modules: Sequence[str] = ATTENTION_PROJECTIONS,
        train_embeddings: bool = True,
        train_norms: bool = True,
    ) -> None:
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout
        self.target_modules = list(target_modules)
        self.train_embeddings = train_embeddings
        self.train_norms = train_norms

    def describe(self) -> dict[str, Any]:
        """The arguments, from which the same adapter can be made."""
        return dict(vars(self))

    def install(self, model: LanguageModel) -> None:
        """Adapt a model in place and freeze the rest of it; its state is then what trains, without frozen weights.

        Raises:
            UserError: the model has no layer with the name of a target module.
        """
        self._adapt(model.llm)
        model.register_state_dict_post_hook(_drop_frozen)

    def merge(self, llm: PreTrainedModel, weights: Mapping[str, Tensor]) -> None:
        """Add a trained adapter to a model of the kind it was trained on, in place.

        Args:
            llm: the model without adapters.
            weights: the trained tensors, by their names in the adapted model.

        Raises:
            UserError: the adapter belongs to another architecture.
        """
        adapted = self._adapt(llm)
        parameters = llm.named_parameters(remove_duplicate=False)
        trained = {name: parameter for name, parameter in parameters if parameter.requires_grad}
        if misfits := compared(weights, trained):
            raise UserError(
                f"the adapter does not fit {type(llm).__name__} of {llm.num_parameters():,} parameters ({misfits}): "
                "its base model was replaced by one of another architecture, or its checkpoint is not whole"
            )
        llm.load_state_dict(weights, strict=False)
        adapted.merge_and_unload(safe_merge=True)
        llm.requires_grad_(True)

    def _adapt(self, llm: PreTrainedModel) -> Any:
        from peft import LoraConfig, LoraModel  # takes seconds, which only runs with adapters should

        for target in self.target_modules:
            if not any(name.endswith(f".{target}") for name, module in llm.named_modules()):
                raise UserError(
                    f"model.adapter.target_modules names {target}, and {type(llm).__name__} has no such layer"
                )
        config = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=self.target_modules
        )
        adapted = LoraModel(llm, config, "default")
        llm.get_input_embeddings().requires_grad_(self.train_embeddings)
        for name, parameter in llm.named_parameters():
            if "norm" in name:
                parameter.requires_grad_(self.train_norms)
        return adapted


def check_complete(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Check that a state to be saved holds every trained weight, whole: all ranks have to call this.

    Args:
        model: the model as it trains, sharded or not.
        state: its state dict, which is empty on ranks that do not write.

    Raises:
        RuntimeError: a trained weight is absent, or has other values than zero in fewer places than the model's.
    """
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        saved = state.get(name)
        live = parameter.detach().ne(0)
        if isinstance(live, DTensor) and isinstance(saved, DTensor):
            live, saved = live.to_local(), saved.to_local()
        count = live.sum()
        # All ranks take part in the sum over shards, also those that have nothing to compare it with.
        total = int(count.full_tensor()) if isinstance(count, DTensor) else int(count)
        if not state:
            continue
        if saved is None or saved.shape != live.shape or int(saved.ne(0).sum()) != total:
            raise RuntimeError(f"{name} would be saved incomplete: {total:,} of its values are not zero in the model")


def _drop_frozen(model: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if not parameter.requires_grad:
            state.pop(f"{prefix}{name}", None)
