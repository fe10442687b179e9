"""Settings, pictures and texts for every logger that can take them."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from PIL import Image
from torch.utils.tensorboard.summary import hparams


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


def log_charts(logger: Logger, names: Iterable[str]) -> None:
    """Let TensorBoard's tab of custom scalars show in one chart what differs by a number at the end of its name.

    Args:
        logger: any of Lightning's; others let their user group charts.
        names: the names of all scalars so far.
    """
    if isinstance(logger, TensorBoardLogger) and (curves := _curves(dict.fromkeys(names, 0.0))):
        charts = {name: ["Multiline", [rf"^{re.escape(name)}/\d+$"]] for name in curves}
        logger.experiment.add_custom_scalars({"evaluations": charts})


def log_curves(logger: Logger, scalars: Mapping[str, float]) -> None:
    """Let TensorBoard draw scalars along the number at the end of their names, so that runs lie over one another.

    Args:
        logger: any of Lightning's; others draw such curves from a table.
        scalars: values by name, as `books/perplexity/2048`, which comes to stand at 2,048 in `curves/books/perplexity`.
    """
    if isinstance(logger, TensorBoardLogger):
        for name, curve in _curves(scalars).items():
            for number, value in sorted(curve.items()):
                logger.experiment.add_scalar(f"curves/{name}", value, number)


def _curves(scalars: Mapping[str, float]) -> dict[str, dict[int, float]]:
    """Scalars whose names end in a number, by what stands before it."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for name, value in scalars.items():
        curve, _, number = name.rpartition("/")
        if number.isdecimal():
            found[curve][int(number)] = value
    return found


def log_picture(logger: Logger, tag: str, png: Path, step: int) -> None:
    """Show a picture in TensorBoard, Weights & Biases or MLflow; other loggers take numbers only.

    Args:
        logger: any of Lightning's.
        tag: name of the picture.
        png: file of the picture.
        step: optimizer steps until then.
    """
    if isinstance(logger, TensorBoardLogger):
        with Image.open(png) as image:
            logger.experiment.add_image(tag, np.asarray(image.convert("RGB")), step, dataformats="HWC")
    elif isinstance(logger, WandbLogger):
        logger.log_image(tag, [str(png)])
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_artifact(logger.run_id, str(png), "figures")


def log_text(logger: Logger, tag: str, markdown: str, step: int) -> None:
    """Show a text in TensorBoard, Weights & Biases or MLflow; other loggers take numbers only."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text(tag, markdown, step)
    elif isinstance(logger, WandbLogger):
        logger.log_text(tag, columns=["step", "text"], data=[[str(step), markdown]])
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_text(logger.run_id, markdown, f"{tag}.md")
