"""The configuration of a run, kept where the run is."""

import itertools
import shutil
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from lit_pi.callbacks.loggers import log_settings
from lit_pi.files import beside


class RunConfig(SaveConfigCallback):
    """Keeps the resolved configuration of each subcommand in the run directory and in every logger.

    Of a training run that was continued, `fit.yaml` is what was asked last; `fit-1.yaml` and so on what was before.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the configuration, once a run, wherever loggers write."""
        if self.already_saved or not trainer.is_global_zero:
            return
        self.already_saved = True
        # One text, whatever files it was read from: it is read again alone.
        text = self.parser.dump(self.config, skip_none=False)
        path = Path(trainer.default_root_dir, self.config_filename)
        if trainer.state.fn == "fit" and path.exists() and path.read_text() != text:
            earlier = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(1))
            with beside(next(each for each in earlier if not each.exists())) as partial:
                shutil.copyfile(path, partial)
        with beside(path) as partial:
            partial.write_text(text)
        for logger in trainer.loggers:
            log_settings(logger, f"config/{self.config_filename.removesuffix('.yaml')}", text)
