"""Settings of generation that come with a model, which transformers copies whatever they say."""

from typing import NamedTuple

from transformers import GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from lit_pi.errors import UserError, shown
from lit_pi.ranges import Range


class Setting(NamedTuple):
    """The values that a setting takes, besides none.

    Attributes:
        kind: what the values are, as people call it.
        types: their types.
        range: the range of their numbers.
        several: whether a list of them may stand there too.
    """

    kind: str
    types: tuple[type, ...]
    range: Range
    several: bool = False


SETTINGS = {
    **dict.fromkeys(
        ("max_length", "max_new_tokens", "num_beams", "num_return_sequences"),
        Setting("a whole number", (int,), Range(1)),
    ),
    **dict.fromkeys(
        ("min_length", "min_new_tokens", "no_repeat_ngram_size"), Setting("a whole number", (int,), Range(0))
    ),
    **dict.fromkeys(("bos_token_id", "eos_token_id"), Setting("the number of a token", (int,), Range(0), several=True)),
    # For no token, and for all of them in vLLM.
    **dict.fromkeys(("pad_token_id", "top_k"), Setting("a whole number", (int,), Range(-1))),
    **dict.fromkeys(("temperature", "max_time"), Setting("a number", (int, float), Range(0))),
    **dict.fromkeys(("top_p", "min_p", "typical_p"), Setting("a number", (int, float), Range(0, 1))),
    "repetition_penalty": Setting("a number", (int, float), Range(0, above=True)),
    "length_penalty": Setting("a number", (int, float), Range()),
    **dict.fromkeys(("do_sample", "use_cache"), Setting("true or false", (bool,), Range())),
}
"""Settings that `generate` of transformers stumbles over, or goes astray by, where they are something else."""


def check_settings(settings: GenerationConfig, model: str) -> None:
    """Check that settings of generation are some, before they are written beside a model.

    Args:
        settings: the model's.
        model: its name.

    Raises:
        UserError: one is of another type, or out of its range.
    """
    for name, setting in SETTINGS.items():
        value = getattr(settings, name, None)
        values = value if isinstance(value, list) and setting.several else [value]
        if not all(each is None or _fits(each, setting) for each in values):
            bounds = "" if setting.range == Range() else f", {setting.range!r}"
            raise UserError(
                f"{name} in the {GENERATION_CONFIG_NAME} of {model} is {shown(repr(value))}, and must be "
                f"{setting.kind}{bounds}: mend or remove it"
            )


def _fits(value: object, setting: Setting) -> bool:
    if isinstance(value, bool):
        return bool in setting.types
    return isinstance(value, setting.types) and value in setting.range
