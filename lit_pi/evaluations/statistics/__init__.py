"""Intervals and paired differences that evaluations share."""
