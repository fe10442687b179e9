"""Tables of the page: figures by strategy and context length, and what they cost."""

import math
from collections.abc import Callable, Mapping, Sequence

from lit_pi.evaluations.passkey.paired import KIND as PASSKEY
from lit_pi.evaluations.perplexity.paired import KIND as PERPLEXITY
from lit_pi.evaluations.records import said
from lit_pi.evaluations.tables import in_html
from lit_pi.report.analysis import DEFINITION, Comparison
from lit_pi.report.page.curves import perplexities
from lit_pi.report.page.elements import header, note, sample, table
from lit_pi.report.page.passkeys import shares
from lit_pi.report.page.series import Shown, of_kind

SIGNS = {"better": ("↓", "better"), "worse": ("↑", "worse"), "tied": ("≈", "no difference is certain")}
"""Signs of verdicts, and what they say."""

By = Mapping[tuple[str, int, int], Comparison]
"""Comparisons of one evaluation, by arm, steps and context length."""


def perplexity_table(name: str, series: Sequence[Shown], found: Sequence[Comparison], first: str) -> str:
    """Perplexity by strategy and context length, before and after training side by side.

    Args:
        name: the evaluation's name.
        series: entries that have it.
        found: comparisons with the first arm.
        first: the first arm.
    """
    by: dict[tuple[str, int, int], Comparison] = {}
    if all(record["definition"] == DEFINITION for each in series for record in each.records[name]):
        for each in found:
            if each.evaluation == name:
                by.setdefault((each.arm, each.steps, each.context_length), each)
    values = {
        (each.entry.arm, each.entry.steps, length): point.value
        for each in series
        for length, point in perplexities(each.records[name]).items()
    }
    best = _best(values, by, first)

    def written(key: tuple[str, int, int]) -> str:
        text = f"{values[key]:,.2f}"
        text = f'<strong class="best">{text}</strong>' if key in best else text
        if key not in by:
            return text
        sign, meaning = SIGNS[by[key].verdict]
        return (
            f'{text}<span class="{by[key].verdict}" title="{meaning}" role="img" aria-label="{meaning}">{sign}</span>'
        )

    meaning = (
        f"↓ better and ↑ worse than {first} after as many steps, ≈ no difference from it is certain (on the same "
        "tokens, 5 % by Holm over all comparisons). Bold: the lowest of each column, and its ties as far as "
        "they were tested"
    )
    several = any(len(each.records[name]) > 1 for each in series)
    seeds = "; of several seeds the figure is that of their mean loss" if several else ""
    caption = f"{name}: perplexity by context length (tokens)"
    return _by_length(caption, series, values, written) + (note(f"{meaning}{seeds}.") if by else "")


def passkey_table(name: str, series: Sequence[Shown]) -> str:
    """Shares of keys found by strategy and context length, before and after training side by side."""
    values = {
        (each.entry.arm, each.entry.steps, length): share
        for each in series
        for length, share in shares(each.records[name]).items()
    }
    caption = f"{name}: passkeys found (%) by context length (tokens)"
    return _by_length(caption, series, values, lambda key: f"{100 * values[key]:.1f}")


def cost_table(series: Sequence[Shown]) -> str:
    """The costs of trainings, beside what their models reach at the longest context length."""
    if not any(each.trainings for each in series):
        return ""
    names = ["model", "steps", "tokens", "seconds", "peak memory (GiB)"]
    columns: list[Callable[[Shown], str]] = []
    for name, own in of_kind(series, PERPLEXITY).items():
        longest = max(length for each in own for length in perplexities(each.records[name]))
        names.append(f"{name}: perplexity at {longest:,}")
        columns.append(lambda each, name=name, longest=longest: _quality(each, name, longest))  # type: ignore[misc]
    for name, own in of_kind(series, PASSKEY).items():
        longest = max(length for each in own for length in shares(each.records[name]))
        names.append(f"{name}: found at {longest:,} (%)")
        columns.append(lambda each, name=name, longest=longest: _share(each, name, longest))  # type: ignore[misc]
    rows = [
        [f"{sample(each)}{in_html(each.name)}", *_costs(each), *(cell(each) for cell in columns)] for each in series
    ]
    several = any(len(each.trainings) > 1 for each in series)
    seeds = " Of several seeds: seconds are the mean, memory the largest." if several else ""
    return table("Training of each model, and what it reaches", header(names), rows) + note(
        f"Steps, tokens, seconds and memory are of the last training, one seed's; validation is not counted.{seeds}"
    )


def _by_length(
    caption: str,
    series: Sequence[Shown],
    values: Mapping[tuple[str, int, int], float],
    written: Callable[[tuple[str, int, int]], str],
) -> str:
    states = sorted({each.entry.steps for each in series})
    lengths = sorted({length for _, _, length in values})
    across = f' colspan="{len(states)}" scope="colgroup"' if any(states) else ' scope="col"'
    down = ' rowspan="2"' if any(states) else ""
    head = f'<tr><th scope="col"{down}>strategy</th>'
    head += "".join(f"<th{across}>{length:,}</th>" for length in lengths) + "</tr>"
    if any(states):
        names = [f"{steps:,} steps" if steps else "zero-shot" for steps in states]
        head += "<tr>" + "".join(f'<th scope="col">{name}</th>' for _ in lengths for name in names) + "</tr>"
    looks = {each.entry.arm: each for each in reversed(series)}
    rows = [
        [
            f"{sample(look._replace(tuned=True))}{in_html(arm)} <small>{in_html(said(look.strategy))}</small>",
            *(
                written((arm, steps, length)) if (arm, steps, length) in values else "–"
                for length in lengths for steps in states
            ),
        ]
        for arm in dict.fromkeys(each.entry.arm for each in series) for look in [looks[arm]]
    ]  # fmt: skip
    return table(caption, head, rows)


def _best(values: Mapping[tuple[str, int, int], float], by: By, first: str) -> set[tuple[str, int, int]]:
    """The lowest of each number of steps and context length, and what it is tied with; of what was compared alone."""
    found: set[tuple[str, int, int]] = set()
    for column in {key[1:] for key in by}:
        own = {key: value for key, value in values.items() if key[1:] == column and (key in by or key[0] == first)}
        lowest = min((key for key in own if math.isfinite(own[key])), key=own.__getitem__, default=None)
        if lowest is None:
            continue
        found.add(lowest)
        if lowest[0] == first:
            found |= {key for key in own if key in by and by[key].verdict == "tied"}
        elif by[lowest].verdict == "tied":
            found.add((first, *column))
    return found


def _costs(each: Shown) -> list[str]:
    if not each.trainings:
        return ["–"] * 4
    steps, tokens = (
        "–" if (value := each.trainings[0].get(key)) is None else f"{value:,}" for key in ("steps", "tokens")
    )
    seconds = [value for training in each.trainings if (value := training.get("seconds")) is not None]
    peaks = [value for training in each.trainings if (value := training.get("gib")) is not None]
    mean = f"{sum(seconds) / len(seconds):,.1f}" if seconds else "–"
    return [steps, tokens, mean, f"{max(peaks):,.2f}" if peaks else "–"]


def _quality(each: Shown, name: str, length: int) -> str:
    point = perplexities(each.records.get(name, [])).get(length)
    return "–" if point is None else f"{point.value:,.2f}"


def _share(each: Shown, name: str, length: int) -> str:
    share = shares(each.records.get(name, [])).get(length)
    return "–" if share is None else f"{100 * share:.1f}"
