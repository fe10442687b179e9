"""Results of runs, side by side."""

from lit_pi.report.command import report, write_report, write_tables

__all__ = ["report", "write_report", "write_tables"]
