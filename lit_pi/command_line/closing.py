"""The last lines of a command: what it made, where that is, and what to do next."""

from datetime import timedelta

from lightning.pytorch import Trainer

from lit_pi.callbacks import History
from lit_pi.errors import printable

NEXT = {
    "fit": "measure it with `lit-pi test --config FILE --model.llm=Pretrained --model.llm.path={run}`, or give it away "
    "with `lit-pi export --checkpoint={run} --output=DIRECTORY`",
    "validate": "set it beside others with `lit-pi report {run} RUN ...`",
    "test": "set it beside others with `lit-pi report {run} RUN ...`",
}
"""The command that people want next, by the one that has ended."""


def closing(trainer: Trainer, subcommand: str) -> list[str]:
    """Say how a run ended well.

    Args:
        trainer: the trainer of the run.
        subcommand: the command that has ended.
    """
    run = printable(str(trainer.default_root_dir))
    lines = [f"Run directory: {run}"]
    if subcommand in NEXT:
        lines.append(f"Next: {NEXT[subcommand].format(run=run)}.")
    history = next((each for each in trainer.callbacks if isinstance(each, History)), None)  # type: ignore[attr-defined]
    if subcommand == "fit" and history is not None and history.told:
        last = history.told[-1]
        loss = trainer.callback_metrics.get("train/loss")
        reached = "" if loss is None else f", to a loss of {float(loss):.3f} nats a token"
        took = timedelta(seconds=round(last["seconds"]))
        lines.insert(0, f"Trained {last['steps']:,} steps, {last['tokens']:,} tokens, in {took}{reached}.")
    return lines
