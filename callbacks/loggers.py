"""Pictures and texts for every logger that can take them."""

from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from lit_pi.evaluations.figures import Picture, draw


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
