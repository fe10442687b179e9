"""Lightning's parser, which says what is wrong in one sentence."""

from typing import Any, NoReturn

from jsonargparse import ArgumentParser, get_loader, set_loader, set_parsing_settings
from lightning.pytorch.cli import LightningArgumentParser
from yaml import YAMLError

from lit_pi.command_line.mistakes import mistake_behind
from lit_pi.command_line.wording import of_file, one_sentence
from lit_pi.command_line.yaml_files import careful
from lit_pi.errors import UserError
from lit_pi.secrets import hidden, without_secrets

set_parsing_settings(
    omegaconf_absolute_to_relative_paths=True,
    add_print_completion_argument=True,
    # No class is made where any value may stand, and none of the modules that run what they are given.
    instantiate_subclass_spec_in_any=False,
    import_path_denylist=[],
)
MODE = "omegaconf+"
"""The way YAML is read: with `${...}` for values that stand elsewhere."""
ArgumentParser(parser_mode=MODE).parse_string("{}")  # after which its loader is there
set_loader(MODE, careful(get_loader(MODE)), (YAMLError,))


class Parser(LightningArgumentParser):
    """Lightning's parser, whose errors are one sentence, and whose configurations are kept without secrets."""

    def dump(self, *arguments: Any, **options: Any) -> str:
        """The configuration as YAML, for somebody to keep: printed, saved, or logged."""
        text = super().dump(*arguments, **options)
        # jsonargparse resolves `${...}` in a text of its own, which it does not check.
        return text if options.get("skip_validation") else without_secrets(text)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message as a mistake of the user; parsers inside another one leave that to it."""
        if not self.exit_on_error:
            super().error(message, ex)
        place, message = of_file(message, ex)
        # Hidden before it is cut: a part of a secret is not known for one.
        raise UserError(mistake_behind(ex) or place + one_sentence(hidden(message), self._options())) from ex

    def _options(self) -> dict[str, Any]:
        """Types of the options of this parser and of its subcommands, by their names; None where one has none."""
        inner = self._subcommands_action.choices.values() if self._subcommands_action else ()
        return {
            name: getattr(action, "_typehint", None)
            for parser in (self, *inner)
            for name, action in parser._option_string_actions.items()
        }
