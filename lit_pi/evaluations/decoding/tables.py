"""How far decoding is from a full pass, as tables."""

from lit_pi.evaluations.evaluation import Found
from lit_pi.evaluations.records import label
from lit_pi.evaluations.tables import Table


def decode_tables(found: Found) -> list[Table]:
    """Return a table for each evaluation: differences and the verdict."""
    tables = []
    for name, records in found.items():
        rows = []
        for run, record in records.items():
            sizes = (record["max_difference"], record["mean_difference"])
            verdict = "consistent" if record["consistent"] else "NOT consistent"
            cells = ("not finite" if size is None else f"{size:.1e}" for size in sizes)
            rows.append([label(run, record), f"{record['tokens']:,}", *cells, f"{record['tolerance']:g}", verdict])
        header = ["run", "tokens", "largest difference", "mean difference", "tolerance (nats)", "verdict"]
        tables.append(Table(f"{name}: decoding with a cache against a full pass", header, rows))
    return tables
