"""Lightning's parser, which says what is wrong in one sentence."""

from typing import NoReturn

from jsonargparse import set_parsing_settings
from lightning.pytorch.cli import LightningArgumentParser

from lit_pi.command_line.mistakes import mistake_behind
from lit_pi.command_line.wording import of_file, one_sentence
from lit_pi.errors import UserError

set_parsing_settings(omegaconf_absolute_to_relative_paths=True, add_print_completion_argument=True)


class Parser(LightningArgumentParser):
    """Lightning's parser, whose errors are one sentence."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message as a mistake of the user; parsers inside another one leave that to it."""
        if not self.exit_on_error:
            super().error(message, ex)
        place, message = of_file(message, ex)
        raise UserError(mistake_behind(ex) or place + one_sentence(message)) from ex
