"""An extended model as a directory that stock transformers loads."""

from pathlib import Path

from lit_pi.errors import UserError
from lit_pi.models.language_model import LanguageModel
from lit_pi.models.provenance import KEY, config_in_effect


def export(model: LanguageModel, directory: Path) -> None:
    """Write the model in Hugging Face format, with a config that rotates as the model does.

    Raises:
        UserError: transformers cannot express the strategy.
    """
    config = config_in_effect(model.llm.config, model.position, model.rope)
    if refusal := getattr(config, KEY).get("refusal"):
        raise UserError(refusal)
    model.llm.save_pretrained(directory)
    config.save_pretrained(directory)
