"""The origin of an exported model, and what is known of how it was made."""

from functools import cached_property
from pathlib import Path
from typing import Any

from lit_pi import positions
from lit_pi.errors import UserError
from lit_pi.evaluations.records import FILE as RESULTS
from lit_pi.evaluations.records import load_records
from lit_pi.models import Pretrained
from lit_pi.models.sources.checkpoint import is_checkpoint, is_run, newest_checkpoint, read_content
from lit_pi.models.sources.own_tokenizer import fit_of
from lit_pi.models.sources.provenance import KEY
from lit_pi.positions import PositionStrategy, Rope


class Origin:
    """A lit_pi run or checkpoint, or a Hugging Face directory or hub id, of which nothing more is known.

    Args:
        path: a run directory, a checkpoint, a Hugging Face directory, or a hub id.

    Raises:
        UserError: a run directory has no complete checkpoint, or a file is no checkpoint.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        place = Path(path).expanduser()
        if is_run(place):
            place = newest_checkpoint(place)
        self.model = str(place) if place.exists() else path
        content = read_content(place) if is_checkpoint(place) else None
        self.step: int | None = content["global_step"] if content else None
        self.fingerprint: dict[str, Any] | None = content[KEY].get("fingerprint") if content else None
        self.trained_with: dict[str, Any] | None = content[KEY]["config"][KEY]["position"] if content else None
        self.run = place.absolute().parents[1] if content and fit_of(place) else None

    @cached_property
    def fit(self) -> dict[str, Any]:
        """The configuration of the `fit` that made the checkpoint; empty where it is not there."""
        return fit_of(Path(self.model)) if self.run is not None else {}

    @property
    def position(self) -> PositionStrategy | None:
        """The strategy that the checkpoint was trained with."""
        return None if self.trained_with is None else rebuilt(self.trained_with)

    @cached_property
    def tokenizer(self) -> dict[str, Any]:
        """Record of the tokenizer of the run, directory or file, as `ModelSource.tokenizer` gives it.

        Raises:
            UserError: there is no model.
        """
        return Pretrained(self.model).tokenizer()

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """The trainings that the weights come from, as far as they are known."""
        return Pretrained(self.model).history()

    def context_of(self, position: PositionStrategy, rope: Rope) -> int | None:
        """Tokens of context the run trained at, where that is longer than in pre-training and no strategy says it."""
        if not self.fit or position.target_context_of(rope) != rope.original_context:
            return None
        train_positions = self.fit["model"].get("train_positions") or {}
        skipped_to = (train_positions.get("init_args") or {}).get("target_context")
        return max(rope.original_context, skipped_to or self.fit["data"]["context_length"])

    def results(self, position: dict[str, Any]) -> list[dict[str, Any]]:
        """Records of the run's evaluations of this checkpoint with this strategy: of each the test, else the last."""
        if self.run is None or not (self.run / RESULTS).is_file():
            return []
        found = {}
        for record in sorted(load_records(self.run), key=lambda record: record["stage"] == "test"):
            protocol = record.get("protocol", {})
            if record["stage"] == "test":
                of_this_step = Path(protocol.get("checkpoint") or "").name == Path(self.model).name
            else:
                of_this_step = record["step"] == self.step
            if of_this_step and protocol.get("position") == position:
                found[record["kind"], record["evaluation"]] = record
        return list(found.values())


def rebuilt(description: dict[str, Any]) -> PositionStrategy:
    """The strategy that `PositionStrategy.describe` gave a description of.

    Raises:
        UserError: its class is not one of lit_pi's.
    """
    arguments = dict(description)
    name = arguments.pop("class")
    if name not in positions.__all__:
        raise UserError(
            f"the checkpoint was trained with {name}, which is not a strategy of lit_pi's own: name it in `position`"
        )
    return getattr(positions, name)(**{key: _rebuilt(value) for key, value in arguments.items()})


def _rebuilt(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return rebuilt(value) if "class" in value else {key: _rebuilt(each) for key, each in value.items()}
