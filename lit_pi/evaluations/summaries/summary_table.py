"""A table of summaries in Parquet: what a model wrote for each document and seed, and what it comes to."""

from collections.abc import Sequence
from pathlib import Path

from lit_pi.evaluations.parquet import write_columns
from lit_pi.evaluations.summaries.scores import SummaryMeasures, WrittenSummary


def write_summaries(
    path: Path, summaries: Sequence[WrittenSummary], ids: Sequence[str], seeds: Sequence[int], texts: Sequence[str]
) -> None:
    """Write a row for each summary; the file is whole at any instant.

    Its columns are `id` of the document, `seed`, the measures of `SummaryMeasures` and the `summary`.

    Args:
        path: of the table.
        summaries: that were written.
        ids: of each one's document.
        seeds: of each one.
        texts: of each one.
    """
    columns: dict[str, Sequence] = {"id": ids, "seed": seeds}
    for place, name in enumerate(SummaryMeasures._fields):
        columns[name] = [summary.measures[place] for summary in summaries]
    columns["summary"] = texts
    write_columns(path, columns)
