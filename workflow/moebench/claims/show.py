"""Claims and comparisons as text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from moebench.claims import evaluate as ev
from moebench.claims.table import CONFIRMED, INCONCLUSIVE, REFUTED
from moebench.text import count, table

DEPENDS = "different by context"
VERDICTS = (CONFIRMED, REFUTED, INCONCLUSIVE, ev.NOT_DECIDED, ev.NOT_MEASURED, ev.NO_EXPECTATION)


def shown(value: Any, low: Any = None, high: Any = None) -> str:
    """A value with its interval, three digits; an empty string for none."""
    if value is None or pd.isna(value):
        return ""
    text = f"{value:.3g}"
    return text if low is None or pd.isna(low) else f"{text} ({low:.3g} to {high:.3g})"


def value_of(row: Any) -> str:
    """Result of a claim's test here: a number with its interval, or the support of a yes or no."""
    if row["value"] is None or pd.isna(row["value"]):
        return ""
    if row["test"] in ("monotone", "rank", "steepest"):
        if pd.isna(row["support"]):
            return "yes" if row["value"] else "no"
        return f"{'yes' if row['value'] else 'no'}; holds in {row['support']:.0%} of resamples"
    return shown(row["value"], row["value_low"], row["value_high"])


def predicted(row: Mapping[Any, Any]) -> str:
    """The cost model's prediction as text; an empty string without one."""
    value = row["predicted_value"]
    if value is None or pd.isna(value):
        return ""
    if row["test"] in ("monotone", "rank", "steepest"):
        text = "yes" if value else "no"
        if (support := row.get("predicted_support")) is not None and not pd.isna(support):
            text += f" (holds in {support:.0%} of draws)"
    else:
        text = shown(value, row.get("predicted_low"), row.get("predicted_high"))
        text = f"{value:.0f} cells do not fit" if row["test"] == "infeasible" else text
    agrees = row["predicted_outcome"]
    return text if agrees == ev.NO_EXPECTATION else f"{text}: {agrees}"


def counts(frame: pd.DataFrame) -> dict[str, int]:
    """Claims by verdict; one that is both confirmed and refuted, e.g. for two kinds of prompts, counts as neither."""
    tally: Counter[str] = Counter()
    for _, verdicts in frame.groupby("claim", sort=False)["verdict"]:
        found = sorted(set(verdicts), key=VERDICTS.index)
        tally[DEPENDS if {CONFIRMED, REFUTED} <= set(found) else found[0]] += 1
    return {v: tally[v] for v in (*VERDICTS, DEPENDS) if tally[v]}


def text(frame: pd.DataFrame, study: str) -> str:
    """The table of claims, and the scope of the verdicts."""
    rows = [
        [
            row["claim"],
            row["verdict"],
            row["outcome"],
            row["expected_here"],
            value_of(row),
            predicted(row),
            "" if pd.isna(row["evaluated_on"]) else row["evaluated_on"],
        ]
        for row in frame.to_dict("records")
    ]
    summary = ", ".join(f"{n} {verdict}" for verdict, n in counts(frame).items())
    return "\n".join(
        [
            table(
                ["claim", "verdict", "same comparison here", "expected", "value here", "predicted", "evaluated on"],
                rows,
            ),
            "",
            f"study {study}: {count(frame['claim'].nunique(), 'claim')}: {summary}",
            "A verdict is about the paper's own models and machine; the same comparison on others decides nothing.",
        ]
    )


def details(frame: pd.DataFrame) -> str:
    """All details of some claims."""
    blocks = []
    for row in frame.to_dict("records"):
        facts = [(k, v) for k, v in row.items() if k not in ("study", "claim") and v is not None and not pd.isna(v)]
        blocks.append("\n".join([row["claim"], *(f"    {k}: {v}" for k, v in facts)]))
    return "\n\n".join(blocks)


def comparison(made: Any, a: str, b: str, every: bool = False) -> str:
    """Changes from one result set to another."""
    pairs = made.pairs if every else made.changed
    rows = [
        [
            row["cell_a"],
            shown(row["a"]),
            shown(row["b"]),
            shown(row["ratio"], row["low"], row["high"]),
            shown(row["p_adjusted"]),
            row["verdict"],
        ]
        for row in pairs.to_dict("records")
    ]
    lines = [f"A: {a}", f"B: {b}", *(f"{name}: {left} | {right}" for name, (left, right) in made.differs.items()), ""]
    if rows:
        lines += [table(["cell", f"{made.metric} A", "B", "B / A", "adjusted p", ""], rows), ""]
    for name, only in (("A", made.only_a), ("B", made.only_b)):
        lines += [f"{count(len(only), 'cell')} only in {name}:", *(f"    {cell}" for cell in only)] if only else []
    tally = Counter(made.pairs["verdict"])
    good = made.pairs["ratio"].dropna()
    middle = f", median ratio {good.median():.3f}" if len(good) else ""
    lines.append(
        f"{count(len(made.pairs), 'pair')} of cells: {', '.join(f'{n} {v}' for v, n in tally.most_common())}{middle}"
    )
    if pd.notna(made.together.p):
        lines.append(
            f"together: {made.together.verdict}, mean ratio {made.together.ratio:.3f}, p = {shown(made.together.p)}, "
            f"counts beyond {made.together.noise:.1%}"
        )
    return "\n".join(lines)
