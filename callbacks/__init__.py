"""Callbacks of lit_pi, installed as `lit_pi.callbacks`."""

if __name__ != "lit_pi.callbacks":
    raise ModuleNotFoundError(
        "this folder is the package `lit_pi.callbacks`: run `pip install -e .` and import that name"
    )

from lit_pi.callbacks.attention_bounds import AttentionBounds
from lit_pi.callbacks.checkpoint import BestCheckpoint, Checkpoint, CheckpointAt
from lit_pi.callbacks.history import History
from lit_pi.callbacks.isolation_probe import IsolationProbe
from lit_pi.callbacks.life_cycle import LifeCycle
from lit_pi.callbacks.measurements import Measurements
from lit_pi.callbacks.predictions import Predictions
from lit_pi.callbacks.progress_bar import LossProgressBar
from lit_pi.callbacks.rope_guard import RopeGuard
from lit_pi.callbacks.sentinel import Sentinel
from lit_pi.callbacks.stock_equality import StockEquality
from lit_pi.callbacks.throughput import Throughput

__all__ = [
    "AttentionBounds",
    "BestCheckpoint",
    "Checkpoint",
    "CheckpointAt",
    "History",
    "IsolationProbe",
    "LifeCycle",
    "LossProgressBar",
    "Measurements",
    "Predictions",
    "RopeGuard",
    "Sentinel",
    "StockEquality",
    "Throughput",
]
