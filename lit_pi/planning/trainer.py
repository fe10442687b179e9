"""Lightning's Trainer, which also plans."""

from math import ceil

from lightning.pytorch import Trainer
from rich.console import Console
from rich.table import Table

from lit_pi.datamodules import LongContextData
from lit_pi.errors import UserError
from lit_pi.models.training.activation_budget import LADDER, STEPS
from lit_pi.module import LitLlama
from lit_pi.planning.measure import StepMeter
from lit_pi.planning.plan import TRACES, Plan, memory_of, search, seconds, settle
from lit_pi.planning.rates import rates
from lit_pi.planning.tracer import Tracer
from lit_pi.progress import progress

GIB = 2**30


class PlanningTrainer(Trainer):
    """Lightning's Trainer, which can also plan a run.

    Attributes:
        planned: the last plan.
    """

    planned: Plan | None = None

    def plan(
        self,
        model: LitLlama,
        datamodule: LongContextData,
        verify: bool = False,
        memory_gib: float | None = None,
        host_memory_gib: float | None = None,
    ) -> Plan:
        """Predict the memory and time of a training step, and the longest context that fits.

        Args:
            model: the model that `fit` would train.
            datamodule: the data, whose batches the step gets.
            verify: run two steps, or those in which layers climb under `auto` and one more, and show what was
                measured beside what was predicted.
            memory_gib: GiB of memory that a device has; by default what the device at hand has.
            host_memory_gib: GiB of the CPU's memory for what each GPU moves there; by default its share of what is
                free.

        Raises:
            UserError: `memory_gib` or `host_memory_gib` is not positive.
        """
        device = self.strategy.root_device
        memory = memory_of(device, self.num_devices)
        if memory_gib is not None:
            memory = memory._replace(device=_bytes("memory_gib", memory_gib))
        if host_memory_gib is not None:
            memory = memory._replace(host=_bytes("host_memory_gib", host_memory_gib))
        checkpointing = model.activation_checkpointing
        climbs = checkpointing.climbs(device.type == "cuda")
        with progress("Tracing steps", total=1 + TRACES + climbs * (len(LADDER) + STEPS - 1)) as bar:
            tracer = Tracer(self, model, datamodule, bar.update)
            trace = tracer.step(datamodule.context_length)
            traces = [trace, *search(tracer, trace, memory)]
            if climbs:
                trace = settle(tracer, trace, memory, checkpointing.memory_gib)
        tokens = datamodule.batch_size * ceil(datamodule.context_length / tracer.context_ranks)
        config, head_dim = tracer.model.llm.config, tracer.model.head_dim
        plan = Plan(
            context_length=datamodule.context_length,
            tokens=tokens,
            peak=trace.peak,
            host=trace.host,
            seconds=seconds(trace, rates(config, head_dim, tokens, tracer.dtype, device)),
            memory=memory,
            longest=max((each.context_length for each in traces if memory.filled(each) <= 1), default=0),
        )
        meter = self._steps(model, datamodule, STEPS + 1 if climbs else 2) if verify else None
        self.planned = plan
        if self.is_global_zero:
            Console().print(table(plan, meter))
        return plan

    def _steps(self, model: LitLlama, datamodule: LongContextData, number: int) -> StepMeter:
        meter = StepMeter()
        self.callbacks, self.loggers = [meter], []
        self.fit_loop.epoch_loop.max_steps = number
        self.limit_val_batches = self.num_sanity_val_steps = 0
        self.fit(model, datamodule)
        return meter


def _bytes(option: str, gib: float) -> float:
    if gib <= 0:
        raise UserError(f"{option} is {gib:g}: it must be positive, as an amount of memory is")
    return gib * GIB


def table(plan: Plan, meter: StepMeter | None) -> Table:
    """A plan, beside what was measured."""
    total = sum(plan.peak.values())
    unit, size_of_unit = ("GiB", GIB) if total >= GIB else ("MiB", GIB / 1024)
    shown = Table(title=f"A step of {plan.tokens:,} tokens on each device, sequences of {plan.context_length:,}")
    shown.add_column("")
    for name in ("predicted", "measured", "difference")[: 1 if meter is None else 3]:
        shown.add_column(name, justify="right")
    for part, size in plan.peak.items():
        shown.add_row(part, f"{size / size_of_unit:,.2f} {unit}")
    shown.add_section()
    found = meter or StepMeter()
    for name, predicted, measured, kind, size_of_kind in (
        ("memory at the peak", total, found.bytes, unit, size_of_unit),
        (f"the CPU's, of {plan.memory.host / GIB:,.1f} GiB", plan.host, found.host, unit, size_of_unit),
        ("step", plan.seconds, found.seconds, "s", 1),
    ):
        cells = [f"{measured / size_of_kind:,.2f} {kind}", f"{predicted / measured - 1:+.0%}"] if measured else []
        if predicted:
            shown.add_row(name, f"{predicted / size_of_kind:,.2f} {kind}", *cells)
    shown.add_row("tokens a second", f"{plan.tokens / plan.seconds:,.0f}")
    shown.add_row(f"longest context in {plan.memory.device / GIB:,.1f} GiB", f"{plan.longest:,} tokens")
    return shown
