"""Predictions of what a training run will need, before it runs."""

from lit_pi.planning.trainer import PlanningTrainer

__all__ = ["PlanningTrainer"]
