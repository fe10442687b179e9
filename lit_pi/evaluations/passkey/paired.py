"""Two runs on the same hidden keys, compared prompt by prompt."""

from pathlib import Path
from typing import NamedTuple

from lit_pi.errors import UserError
from lit_pi.evaluations.passkey.prompt_table import read_answered
from lit_pi.evaluations.records import latest
from lit_pi.evaluations.statistics.paired_shares import PairedShares, paired_shares

KIND = "passkey"
"""The kind of its records in `results.json`."""
ASKED = ("mode", "cells", "trials", "seed", "template", "filler", "tokenizer")
"""The parts of a protocol that decide which prompts there are."""


class PairedPasskeys(NamedTuple):
    """The keys that another run finds and a baseline does not, on the prompts that both were given.

    Attributes:
        evaluation: whose prompts they are.
        context_length: tokens of the prompts.
        shares: shares of the prompts.
    """

    evaluation: str
    context_length: int
    shares: PairedShares


def paired_passkeys(baseline: Path, other: Path) -> list[PairedPasskeys]:
    """The differences of two run directories, for every evaluation and context length that both have.

    A run counts with its last test, or its last validation where it was never tested. A rerun is not needed: the
    tables of prompts that the runs have written are read.

    Raises:
        UserError: a run has no results, its table is gone, or both hid other keys under one name.
    """
    records, others = latest(baseline, KIND), latest(other, KIND)
    found = []
    for name in [name for name in records if name in others]:
        first, second = records[name], others[name]
        if any(first["protocol"][key] != second["protocol"][key] for key in ASKED):
            raise UserError(
                f"{baseline} and {other} hid different keys as {name}: test both with the same mode, trials, seed, "
                "filler and tokenizer"
            )
        one, two = (read_answered(run, record) for run, record in ((baseline, first), (other, second)))
        for length in sorted(one.keys() & two.keys()):
            if pairs := [(right, two[length][key]) for key, right in one[length].items() if key in two[length]]:
                found.append(PairedPasskeys(name, length, paired_shares(pairs)))
    return found
