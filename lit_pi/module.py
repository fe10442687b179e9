"""The LightningModule: a language model, a position strategy, and how they train and are scored."""

from collections import Counter
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Shaped
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import Optimizer

from lit_pi.batches import IGNORE, Generated, GenerationBatch, ScoringBatch, Span, TrainingBatch
from lit_pi.errors import UserError
from lit_pi.models import LanguageModel, ModelSource, Pretrained
from lit_pi.models.attention.kernels import Kernel, check_kernel, use_kernel
from lit_pi.models.attention.packages import FLASH_ATTN
from lit_pi.models.decoding.decode_consistency import score_both_ways
from lit_pi.models.decoding.generation import generate
from lit_pi.models.equality.checks import Equality, check_kind
from lit_pi.models.layers.compilation import compiles
from lit_pi.models.layers.rotation import install_rotation
from lit_pi.models.sources.checkpoint import check_adapter, check_checkpoint, model_record
from lit_pi.models.sources.provenance import KEY
from lit_pi.models.training import offload
from lit_pi.models.training.activation_budget import ActivationBudget
from lit_pi.models.training.activation_checkpointing import ActivationCheckpointing
from lit_pi.models.training.float8 import Float8, use_float8
from lit_pi.models.training.lora import LoRA, check_complete
from lit_pi.models.training.malloc import keep_freed_memory
from lit_pi.models.training.optimization import adamw, configured, restart_schedule, step_plateaus, warmup
from lit_pi.parallel import FSDP2, StepLoss
from lit_pi.positions import (
    Contiguous,
    LayerRotations,
    PositionStrategy,
    Rope,
    StretchingStrategy,
    TrainPositions,
)

SPEND_MEMORY = ActivationCheckpointing()
"""By default layers keep as much as fits into a GPU's memory."""


class LitLlama(StepLoss):
    """A LLaMA-family model whose positions come from a strategy.

    The strategy given here is the one in effect, whatever a loaded checkpoint was trained with.

    Args:
        llm: source of the weights: `FromScratch` or `Pretrained`.
        position: the strategy that turns token positions into rotary angles.
        optimizer: the optimizer, given its parameters.
        scheduler: the learning rate scheduler, given its optimizer; it steps with every optimizer step.
        train_positions: the positions that tokens get in training; `Contiguous` by default.
        activation_checkpointing: how much the layers keep for the backward pass; by default what fits on the GPU.
        compile_layers: run each decoder layer as one graph that torch has compiled; by default on GPUs.
        attention: the kernel that computes attention on GPUs; by default the first of torch's that can.
        float8: multiply in float8, where GPUs can: faster than bfloat16, with other rounding.
        adapter: small matrices to train while a `Pretrained` model's weights stay; by default all weights train.
    """

    def __init__(
        self,
        llm: ModelSource,
        position: PositionStrategy,
        optimizer: OptimizerCallable = adamw,
        scheduler: LRSchedulerCallable = warmup,
        train_positions: TrainPositions | None = None,
        activation_checkpointing: ActivationCheckpointing = SPEND_MEMORY,
        compile_layers: bool | None = None,
        attention: Kernel | None = None,
        float8: Float8 | None = None,
        adapter: LoRA | None = None,
    ) -> None:
        super().__init__()
        self.source = llm
        self.position = position
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.train_positions = train_positions or Contiguous()
        self.activation_checkpointing = activation_checkpointing
        self.compile_layers = compile_layers
        self.attention = attention
        self.float8 = float8
        self.adapter = adapter
        self.model: LanguageModel | None = None
        self.checkpoint_path: str | None = None  # what the command line is about to load
        self.checkpoint_position: dict[str, Any] | None = None
        self.equality: dict[str, Equality] = {}
        self._checked: dict[tuple[int, ...], bool] = {}
        self._budget: ActivationBudget | None = None
        self.lr: float | None = None  # what `LearningRateFinder` chooses

    def configure_model(self) -> None:
        """Build, adapt and shard the model, once."""
        if self.model is not None:
            return
        parallelism = self.trainer.strategy
        if isinstance(parallelism, FSDP2):
            llm, rope, fill = self.source.lazily(parallelism.root_device)
        else:
            llm, rope = self.source.build()
        self.equality = {"twin": check_kind(llm.config, self.position)}
        self.model = LanguageModel(llm, self.position, rope)
        self.position = self.model.position
        rank_zero_info(
            f"Model: {type(llm).__name__} of {llm.num_parameters():,} parameters, {rope}, {self.position.describe()}"
        )
        self._check_data(llm.config.vocab_size)
        if self.adapter is not None:
            self._install(self.adapter)
        device = parallelism.root_device
        if self.attention is not None:
            use_kernel(self.attention, device)
        if self.float8 is not None:
            use_float8(self.model, self.float8, device)
        if device.type == "cpu":
            keep_freed_memory()
            install_rotation(self.model.decoder_layers)
        self.activation_checkpointing.install(self.model, on_gpu=device.type == "cuda")
        for layer in self.model.layer_forwards:
            layer.compiled = compiles(self.compile_layers, device)
        if isinstance(parallelism, FSDP2):
            parallelism.shard(self.model, fill)
        if self.attention == FLASH_ATTN:
            self.model.use_package(device, self.compute_dtype)

    def _install(self, adapter: LoRA) -> None:
        assert self.model is not None
        if not isinstance(self.source, Pretrained):
            raise UserError(
                "model.adapter trains beside weights that stay, and those of `FromScratch` are random and stored "
                "nowhere: give `model.llm` as `Pretrained`, or leave out `model.adapter`"
            )
        if isinstance(self.trainer.strategy, FSDPStrategy):
            raise UserError("model.adapter does not train under FSDP1: use configs/parallel/fsdp2.yaml")
        adapter.install(self.model)
        # Frozen weights are not in checkpoints; `check_adapter` makes sure that all the others are.
        self.strict_loading = False
        trained = sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
        rank_zero_info(f"Adapter: LoRA of rank {adapter.rank}, {trained:,} parameters train")

    def _check_data(self, vocab_size: int) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if data is None:
            return
        data.check_vocabulary(vocab_size)
        for position, rope in self.rotations.distinct if self.trainer.training else ():
            trained, reach = self.train_positions.context_length(data.context_length), position.target_context_of(rope)
            if isinstance(position, StretchingStrategy) and trained > reach:
                rank_zero_warn(
                    f"training on {trained} tokens, which is more than the {reach} that {position.describe()} "
                    "reaches: positions beyond are extrapolated"
                )

    def forward(self, *args: Any, **kwargs: Any) -> Float[Tensor, "batch scored"]:
        """Negative log-likelihoods in nats; see `LanguageModel.forward`."""
        assert self.model is not None
        return self.model(*args, **kwargs)

    def on_train_start(self) -> None:
        """Say what computes attention, and prepare to measure the first steps."""
        super().on_train_start()
        assert self.model is not None
        if self.lr is not None:
            restart_schedule(self.trainer, self.lr, self.make_scheduler)
        if self.attention not in (None, FLASH_ATTN):
            check_kernel(self.attention, self.attention_kernel())
        if self.activation_checkpointing.climbs(self.device.type == "cuda"):
            self._budget = ActivationBudget(self.model, self.device, self.activation_checkpointing.memory_gib)
        kernel, masked = self.attention_kernel(), self.attention_kernel(masked=True)
        rank_zero_info(
            f"Attention: {kernel}; {masked} where a sequence holds several documents or a layer has a window."
        )
        if self.model.sequence_mesh is not None:
            in_ring = self.model.attends_in_ring(self.device)
            way = "pass around in a ring, gathered for packed documents" if in_ring else "are gathered"
            rank_zero_info(f"Sequences are split over {self.model.sequence_mesh.size()} ranks: keys and values {way}.")

    def placed(self, batch: TrainingBatch) -> TrainingBatch:
        """A batch on the CPU, with the positions that its tokens are trained at."""
        return batch._replace(position_ids=self.train_positions(batch.position_ids, batch.input_ids, self.global_step))

    def _on_before_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        # Lightning's public hook belongs to either module or data; on a GPU, positions would be waited for.
        batch = self.placed(batch) if isinstance(batch, TrainingBatch) else batch
        return super()._on_before_batch_transfer(batch, dataloader_idx)

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        """The batch's part of the mean negative log-likelihood of the step's targets; see `StepLoss`."""
        return self.loss_of(self.learn(batch).sum(), (batch.targets != IGNORE).sum())

    def learn(self, batch: TrainingBatch, root: nn.Module | None = None) -> Float[Tensor, "batch seq"]:
        """Negative log-likelihood in nats of a batch's targets, at the positions it has.

        Args:
            batch: the batch to learn.
            root: the module to call instead of this one, where something around it gathers its weights.
        """
        return (root or self)(
            batch.input_ids,
            batch.targets,
            position_ids=batch.position_ids,
            document_ids=batch.document_ids,
            context_length=self.train_positions.context_length(batch.input_ids.shape[1]),
        )

    def validation_step(self, batch: ScoringBatch | GenerationBatch, *indices: int) -> dict[str, Any]:
        """For each span of the batch, `token_nll` in nats `[batch, stop - start]`, and `token_rank` where wanted.

        Both are 0 where nothing is scored. Of prompts to continue, the fields of `Generated`; where their right
        continuation is known, those of `BothWays`.
        """
        return self._evaluate(batch)

    def test_step(self, batch: ScoringBatch | GenerationBatch, *indices: int) -> dict[str, Any]:
        """The same as `validation_step`."""
        return self._evaluate(batch)

    def predict_step(self, batch: GenerationBatch, *indices: int) -> Generated:
        """Continue each prompt."""
        return self._generate(batch)

    def _evaluate(self, batch: ScoringBatch | GenerationBatch) -> dict[str, Any]:
        if isinstance(batch, ScoringBatch):
            return self._score(batch)
        if batch.targets is None:
            return self._generate(batch)._asdict()
        assert self.model is not None
        return score_both_ways(self.model, batch)._asdict()

    def _generate(self, batch: GenerationBatch) -> Generated:
        assert self.model is not None
        parallelism = self.trainer.strategy
        # Where ranks gather weights for each other, all run as many forwards as the one that runs most.
        together = isinstance(parallelism, FSDP2 | FSDPStrategy)
        decide = partial(parallelism.reduce_boolean_decision, all=False) if together else bool
        return generate(self.model, batch, decide)

    def _score(self, batch: ScoringBatch) -> dict[str, list[Shaped[Tensor, "batch span"]]]:
        spans = batch.spans
        if self._one_forward(tuple(span.context_length for span in spans)):
            whole = self._scores(batch, batch.input_ids, batch.targets, batch.scored)
            return {name: [part[:, span.start : span.stop] for span in spans] for name, part in whole.items()}
        parts = [self._score_alone(batch, span) for span in spans]
        return {name: [part[name] for part in parts] for name in parts[0]}

    def _score_alone(self, batch: ScoringBatch, span: Span) -> dict[str, Shaped[Tensor, "batch span"]]:
        """Score each window cut to its own length, one by one, so that every rank runs as many forwards."""
        scored = batch.scored[span.start : span.stop]
        targets = batch.targets[:, span.start : span.stop]
        rows = [
            self._scores(batch, batch.input_ids[row, None, :length], targets[row, None], scored.clamp(max=length - 1))
            for row, length in enumerate(batch.lengths.clamp(max=span.context_length).tolist())
        ]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def _scores(
        self, batch: ScoringBatch, input_ids: Tensor, targets: Tensor, scored: Tensor
    ) -> dict[str, Shaped[Tensor, "batch scored"]]:
        found = self(input_ids, targets, scored=scored, ranked=batch.ranked)
        return found._asdict() if batch.ranked else {"token_nll": found}

    def _one_forward(self, context_lengths: tuple[int, ...]) -> bool:
        """Whether one forward of the longest window serves every context length, checked once."""
        if context_lengths not in self._checked:
            agree = self.position.prefix_consistent and self.rotations.prefix_agrees(context_lengths)
            if self.position.prefix_consistent and not agree:
                rank_zero_warn(
                    f"{type(self.position).__name__} says that it is prefix consistent, but its angles differ "
                    f"between context lengths {context_lengths}: scoring each length with its own forward"
                )
            self._checked[context_lengths] = agree
        return self._checked[context_lengths]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Optimizer over the parameters that train, and its scheduler, stepped with it."""
        return configured(self.make_optimizer, self.make_scheduler, (p for p in self.parameters() if p.requires_grad))

    def on_validation_end(self) -> None:
        """Step schedulers that wait for what was measured."""
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            step_plateaus(self.trainer)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Step, and free the gradients: Lightning would hold them through the next forward pass."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        optimizer.zero_grad()
        if self._budget is not None and (modes := self._budget.settle()) is not None:
            self._budget = None
            kinds = ", ".join(f"{count} {mode}" for mode, count in modes.items())
            rank_zero_info(f"Activation checkpointing of layers, to fill the GPU's memory: {kinds}.")

    def on_train_end(self) -> None:
        """Make room in the CPU's memory: Lightning moves the model and its optimizer there now."""
        if self.activation_checkpointing.offload and self.device.type == "cuda":
            offload.give_back()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Note what one of the first steps needed."""
        if self._budget is not None:
            self._budget.note_peak()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer is asked to; only FSDP1's root knows the norm of all its shards."""
        root = self.trainer.strategy.model
        if isinstance(root, FullyShardedDataParallel) and gradient_clip_val and gradient_clip_algorithm != "value":
            root.clip_grad_norm_(gradient_clip_val)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the model's config, its rope and the strategy in effect."""
        assert self.model is not None
        checkpoint[KEY] = model_record(self.model)
        if (data := getattr(self.trainer, "datamodule", None)) is not None:
            checkpoint[KEY] |= {"tokenizer": data.tokenizer_record, "documents": data.training_records}
        if self.adapter is not None:
            assert isinstance(self.source, Pretrained)
            check_complete(self, checkpoint["state_dict"])
            checkpoint[KEY] |= {"adapter": self.adapter.describe(), "base": self.source.origin()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember the checkpoint's strategy, which the one given here replaces.

        Raises:
            UserError: the checkpoint is not of lit_pi, or of another architecture or adapter.
        """
        assert self.model is not None
        check_adapter(checkpoint, self.adapter, self.trainer.ckpt_path)
        self.checkpoint_position = check_checkpoint(checkpoint, self.model, self.trainer.ckpt_path)
        if (data := getattr(self.trainer, "datamodule", None)) is not None:
            data.check_trained_with(checkpoint[KEY].get("tokenizer"), self.trainer.ckpt_path)
            data.trained_before = checkpoint[KEY].get("documents", [])
        if self.checkpoint_position != self.position.describe():
            rank_zero_info(
                f"The checkpoint was trained with {self.checkpoint_position}; in effect is {self.position.describe()}."
            )

    @property
    def own_tokenizer(self) -> dict[str, Any] | None:
        """Record of the tokenizer that the weights were trained with; None for weights that were not trained."""
        return (Pretrained(self.checkpoint_path) if self.checkpoint_path else self.source).tokenizer()

    @property
    def rope(self) -> Rope:
        """The rotary embedding that the model was pre-trained with."""
        assert self.model is not None
        return self.model.rope

    @property
    def rotations(self) -> LayerRotations:
        """By what each layer rotates."""
        assert self.model is not None
        return self.model.rotations

    def describe(self) -> dict[str, Any]:
        """Describe the model, as results record it."""
        assert self.model is not None
        return {
            "position": self.position.describe(),
            "rope": self.rope.describe(),
            "model": self.source.describe(),
            "adapter": None if self.adapter is None else self.adapter.describe(),
            "checkpoint": self.trainer.ckpt_path,
            "checkpoint_position": self.checkpoint_position,
            "precision": self.trainer.precision,
            "compute_dtype": str(self.compute_dtype).removeprefix("torch."),
            "attention_kernel": self.attention_kernel(),
            "compiled": self.model.layer_forwards[0].compiled,
            "float8": self.float8,
            "activation_checkpointing": dict(Counter(layer.mode for layer in self.model.layer_forwards)),
            "equal_to_stock": {name: found._asdict() for name, found in self.equality.items()},
            "one_forward_for_all_context_lengths": all(self._checked.values()),
        }

    def attention_kernel(self, masked: bool = False) -> str:
        """Name of what computes attention, also where a mask hides more than what follows."""
        assert self.model is not None
        return self.model.attention_kernel(self.device, self.compute_dtype, masked)

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype in which matrices are multiplied, float8 aside."""
        if isinstance(self.trainer.strategy, FSDP2):
            return self.trainer.strategy.compute_dtype
        mixed = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
        return mixed.get(self.trainer.precision, next(self.parameters()).dtype)
