"""Questions with options to choose from, one file a task."""

from lit_pi.evaluations.choices.tasks.boolq import BoolQ
from lit_pi.evaluations.choices.tasks.piqa import PIQA
from lit_pi.evaluations.choices.tasks.race import RACE
from lit_pi.evaluations.choices.tasks.task import Question, Task
from lit_pi.evaluations.choices.tasks.winogrande import WinoGrande

__all__ = ["PIQA", "RACE", "BoolQ", "Question", "Task", "WinoGrande"]
