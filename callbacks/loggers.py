"""Settings, pictures and texts for every logger that can take them."""

from collections.abc import Iterator
from typing import Any

import yaml
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torch.utils.tensorboard.summary import hparams

from lit_pi.evaluations.figures import Picture, draw


def log_settings(logger: Logger, tag: str, text: str) -> None:
    """Keep a run's resolved configuration: as hyper-parameters, and as text where a logger shows texts.

    Args:
        logger: any of Lightning's.
        tag: over the text.
        text: the configuration in YAML.
    """
    settings = yaml.safe_load(text)
    logger.log_hyperparams(settings)
    if isinstance(logger, TensorBoardLogger):
        # Lightning fills the tab of hyper-parameters only beside a figure, which no run has when it begins.
        flat = {name: str(value) for name, value in _flat(settings)}
        for summary in hparams(flat, {}):
            logger.experiment._get_file_writer().add_summary(summary)
    log_text(logger, tag, "\n".join(f"    {line}" for line in text.splitlines()), 0)


def _flat(settings: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(settings, dict) and settings:
        for name, value in settings.items():
            yield from _flat(value, f"{above}.{name}" if above else str(name))
    else:
        yield above, settings


def log_picture(logger: Logger, tag: str, picture: Picture, step: int) -> None:
    """Show a picture in TensorBoard, Weights & Biases or MLflow; other loggers take numbers only."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_figure(tag, draw(picture), step)
    elif isinstance(logger, WandbLogger):
        logger.log_image(tag, [draw(picture)])
    elif isinstance(logger, MLFlowLogger):
        _mlflow(logger).log_figure(logger.run_id, draw(picture), f"figures/{tag}-{step:06d}.png")


def log_text(logger: Logger, tag: str, markdown: str, step: int) -> None:
    """Show a text in TensorBoard, Weights & Biases or MLflow; other loggers take numbers only."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text(tag, markdown, step)
    elif isinstance(logger, WandbLogger):
        logger.log_text(tag, columns=["step", "text"], data=[[str(step), markdown]])
    elif isinstance(logger, MLFlowLogger):
        _mlflow(logger).log_text(logger.run_id, markdown, f"{tag}.md")


def _mlflow(logger: MLFlowLogger) -> Any:
    return logger.experiment
