"""The line under a figure's title, which says what was measured and what the figure does not show."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from moebench import columns
from moebench.figures import accuracy, pareto, style, tiles, unsupported
from moebench.figures.data import Data
from moebench.formats.plan import Plan, Task
from moebench.prompts import corpora
from moebench.tables import stats

_ENGINES = {"vllm": "vLLM", "transformers": "transformers"}
NOT_MEASURED = "Computed from published architectures; nothing was measured."
MOST_RANGE = 5
"""With this number of repeats or fewer, the bootstrap interval is their range."""
NBSP = "\N{NO-BREAK SPACE}"
WEIGHTS = {
    "checkpoint": "trained weights",
    "random_init": "random weights",
    "dummy": "dummy weights (untrained routing, the same in all layers)",
}


def _listed(words: Iterable[str]) -> str:
    words = list(words)
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _few(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low}" if low == high else f"{low} to {high}"


def engine(plan: Plan, rows: pd.DataFrame | None = None) -> str:
    """Names and versions of the engines of some rows, in their official spelling; without rows: the study's own."""
    pairs = [(plan["engine"]["name"], plan["engine"]["version"])]
    if rows is not None and rows["engine_name"].notna().any():
        ran = _engines(rows[rows["status"] != "not measured"]) if "status" in rows else set()
        named = {name for name, _ in ran}  # for an engine that ran, the planned version means nothing
        pairs = sorted(ran | {pair for pair in _engines(rows) if pair[0] not in named})
    return _listed(f"{_ENGINES.get(name, name)} {version}" for name, version in pairs)


def _engines(rows: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(rows["engine_name"].dropna(), rows["engine_version"].dropna(), strict=True))


def _machines(plan: Plan, rows: pd.DataFrame) -> str:
    """The study's hardware, with its device if there is only one, and the hardware of hosted services."""
    own, elsewhere = plan["hardware"], rows["gpus"].isna()
    local = rows[~elsewhere]
    devices = local["device_name"].dropna().unique().tolist() if "device_name" in rows else []
    named = [own["title"] + (f" ({devices[0]})" if len(devices) == 1 else "")] if len(local) else []
    return _listed([*named, *sorted(set(rows.loc[elsewhere, "hardware"]))])


def what(plan: Plan, rows: pd.DataFrame) -> str:
    """Models, weights, engine, hardware and prompts of some rows, and what they do not represent."""
    if rows.empty:
        return NOT_MEASURED
    size = "" if plan["scale"] == "paper" else f"{plan['scale']} "
    weights = _listed(WEIGHTS.get(w, w) for w in sorted(rows["weights"].dropna().unique()))
    hardware = plan["hardware"]
    text = f"{size}models with {weights}, {engine(plan, rows)} on {_machines(plan, rows)}"
    text += f", {_prompts(rows)}" + images(rows)
    if hardware["kind"] == "cpu":
        text += ": not representative of an H100"
    text = f"{text[0].upper()}{text[1:]}. {workload(rows)}".strip()
    if "activation" in set(rows["protocol_kind"]) and set(rows["weights"].dropna()) & {"random_init", "dummy"}:
        text += " Routers with random weights are untrained: not representative of trained models."
    return text


def caveat(plan: Plan, rows: pd.DataFrame) -> str:
    """Models, weights and hardware of a whole study in one line, and what they do not represent."""
    if rows.empty:
        return NOT_MEASURED
    size = "Models" if plan["scale"] == "paper" else f"{plan['scale'].capitalize()} models"
    weights = set(rows["weights"].dropna())
    others = ["of an H100"] * (plan["hardware"]["kind"] == "cpu")
    others += ["of trained models"] * bool(weights & {"random_init", "dummy"})
    limits = f": not representative {_listed(others).replace(' and ', ' or ')}" if others else ""
    return f"{size} with {_listed(WEIGHTS.get(w, w) for w in sorted(weights))} on {_machines(plan, rows)}{limits}."


def workload(rows: pd.DataFrame) -> str:
    """Batch, input and output lengths of some rows: one value, or the smallest and the largest."""
    timed = rows[rows["protocol_kind"] != "activation"]
    if timed.empty:
        return ""
    sizes = [_span(timed[name]) for name in ("batch", "input_tokens", "output_tokens")]
    if set(timed["protocol_kind"]) == {"load"}:  # no batch: requests arrive over time
        return f"Requests over time with about {sizes[1]} input and {sizes[2]} output tokens."
    return f"Batch {sizes[0]}, {sizes[1]} input and {sizes[2]} output tokens."


def images(rows: pd.DataFrame) -> str:
    """Number and size of the images of some rows, as a range if they differ."""
    seen = rows[rows["images"].fillna(0) > 0] if "images" in rows else rows[:0]
    if seen.empty:
        return ""
    number, sized = _span(seen["images"]), seen["image_size"].dropna()
    edges = [f"of {_span(sized)} px"] if len(sized) else []
    edges += ["of the data set"] if len(sized) < len(seen) else []
    some = "" if len(seen) == len(rows) else ", some"
    return f"{some} with {number} image{'' if number == '1' else 's'} {_listed(edges)}"


def _span(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _prompts(rows: pd.DataFrame) -> str:
    """The kinds of prompts, and corpora other than the default."""
    kinds = sorted(rows["prompts"].dropna().unique())
    plain = [kind for kind in kinds if kind != "items"]
    words = [f"{_listed(plain)} prompts"] if plain else []
    texts = sorted(set(rows["corpus"].dropna())) if "corpus" in rows else []
    words += [f"items of {_listed(texts)} as prompts"] if "items" in kinds else []
    others = "" if "items" in kinds or set(texts) <= {corpora.PROSE} else f" ({_listed(texts)})"
    return _listed(words) + others


def interval(repeats: pd.Series) -> str:
    """Kind of interval for medians over this many repeats: with few, their range, which covers less than 95%."""
    counts = sorted({int(n) for n in repeats if n > 1})
    few = [n for n in counts if n <= MOST_RANGE]
    covered = _listed(dict.fromkeys(f"{stats.coverage_of_range(n):.0%}" for n in few))
    ranged = f"their range (contains the true median with {covered})" if few else ""
    if len(few) == len(counts):
        return ranged or "none"
    return f"bootstrap 95% interval{f' with more than {MOST_RANGE}, otherwise {ranged}' if few else ''}"


def drift(rows: pd.DataFrame) -> str:
    """Canary drift of the loads that measured some cells; empty if no canary ran."""
    known = rows.drop_duplicates("engine")["canary_drift"].dropna() if "canary_drift" in rows else rows[:0]
    if not len(known):
        return ""
    most = f", at most {known.max():.0%}" if len(known) > 1 else ""
    return f"Canary drift within a load: {'median ' * (len(known) > 1)}{known.median():.0%}{most}."


WRONG_TOKENS = "DeepSeek's tokens are wrong on a CPU (vLLM's kernel misreads its queries): its accuracy is meaningless"


def tokens_are_wrong(plan: Plan, rows: pd.DataFrame) -> bool:
    """Whether rows contain cells with wrong tokens: multi-head latent attention in vLLM's CPU build."""
    if plan["hardware"]["kind"] != "cpu":
        return False
    known = [plan["engines"], *(part["engines"] for part in plan.get("accuracy", {}).values())]
    names = set(rows.loc[rows["engine_name"] != "transformers", "engine"])
    found = [engines[name]["model"]["architecture"] for engines in known for name in names & set(engines)]
    return any(architecture.get("attention", {}).get("kind") == "mla" for architecture in found)


def _searched(good: pd.DataFrame) -> str:
    """Meaning of a search's bracket, and the number of searches without an upper end."""
    open_ended = int(good["max_rate_high"].isna().sum())
    said = "Highest rate tried that meets the goals; error bars: up to the lowest that misses them"
    bounds = "is a lower bound" if open_ended == 1 else "are lower bounds"
    return said + (f"; {open_ended} of {len(good)} {bounds}: no rate tried misses the goals." if open_ended else ".")


def how(rows: pd.DataFrame, medians: bool = True) -> str:
    """Repeats, intervals and the numbers of irregular cells; ``medians``: the figure shows medians."""
    good = rows[rows["status"] == "ok"]
    parts = [] if len(good) else ["Nothing is measured yet."]
    if len(good):
        repeats = good["n_repeats"]
        if set(good["protocol_kind"]) == {"activation"}:
            parts.append("Not timed: every choice of the router is counted.")
            if medians and repeats.max() > 1:
                parts.append(f"Median of {_few(repeats)} batches; error bars: {interval(repeats)}.")
        elif not medians and "find" in good and good["find"].notna().all():
            parts.append(_searched(good))
        elif not medians:
            parts.append("Counted over all runs of a cell.")
        elif repeats.max() < 2:
            parts.append("One run per cell, so no interval.")
        else:
            parts.append(f"Median of {_few(repeats)} repeats in one load; error bars: {interval(repeats)}.")
        parts += [drift(good)] * bool(drift(good))
    if set(good["protocol_kind"]) == {"paper"}:
        parts.append("Timed as in the paper.")
    missing, unsupported = (int((rows["status"] == status).sum()) for status in ("not measured", "unsupported"))
    odd = [
        (unsupported, "unsupported"),
        (len(rows) - len(good) - missing - unsupported, "failed"),
        (missing, "not measured"),
        (
            int(good["unstable"].fillna(False).sum()),
            f"unstable (hollow; CV or canary gap above {stats.UNSTABLE_CV:.0%})",
        ),
        (int(good["throttled"].fillna(False).sum()), "throttled (clocks reduced by a power or heat limit)"),
        (int(good["derived_from"].notna().sum()), "truncated from longer runs"),
        (int(tiles.untuned(rows).sum()), f"with {tiles.WORDS}"),
    ]
    named = [f"{number} {words}".replace(" ", NBSP) for number, words in odd if number]
    if named and len(good):
        parts.append(f"{len(rows)} cells: {', '.join([f'{len(good)}{NBSP}measured', *named])}.")
    return " ".join(parts)


def of(plan: Plan, placed: Data) -> str:
    """The line of a figure of lines, bars or points."""
    single = {*columns.EVENNESS, *columns.COUNTED, *columns.SPECULATION, *columns.SEARCHED}
    said = caption(plan, placed.rows, medians=not {*placed.plot.y} <= single)
    refused = unsupported.words(placed) if placed.plot.kind in ("lines", "bars") else ""
    front = front_words(placed) if placed.plot.kind == "pareto" and not accuracy.uses(placed.plot) else ""
    return " ".join(filter(None, [said, front, accuracy_words(plan, placed), cost_words(plan, placed), refused]))


def front_words(placed: Data) -> str:
    """The caption's sentence about the Pareto frontier."""
    if pareto.has_frontier(placed):
        return "Ringed: points that no other point beats (Pareto frontier, dashed)."
    return "No Pareto frontier: the differences are within noise."


def cost_words(plan: Plan, placed: Data) -> str:
    """The caption's sentences about price and power; empty for figures without cost or energy."""
    shown, parts = {*placed.plot.y, placed.plot.x, *placed.plot.beside}, []
    if any(name.startswith("usd_") for name in shown):
        price, file = plan["hardware"].get("price"), f"config/hardware/{plan['hardware']['name']}.yaml"
        parts.append(
            f"At {price['usd_per_hour']:g} USD per device and hour ({price['source']}, read {price['date']}): {file}."
            if price
            else f"No cost: {file} has no price; enter yours."
        )
    if energy := [name for name in shown if name.startswith("joules_")]:
        good = placed.rows[placed.rows["status"] == "ok"]
        if len(good) and not any(good[name].notna().any() for name in energy):
            parts.append("No energy: the power of the devices was not read, or the runs were too short.")
    return " ".join(parts)


def caption(plan: Plan, rows: pd.DataFrame, medians: bool = True) -> str:
    """The complete caption."""
    return f"{what(plan, rows)} {how(rows, medians)}".strip()


def accuracy_words(plan: Plan, placed: Data) -> str:
    """The caption's sentences about accuracy; empty for a figure without it."""
    if not (accuracy.uses(placed.plot) or accuracy.printed(placed.plot)):
        return ""
    rows = placed.rows
    good = rows[rows["accuracy_status"] == "ok"]
    if good.empty:
        return "No accuracy is measured yet."
    tasks = _tasks(plan, rows["experiment"].iloc[0], set(good["engine"]))
    parts = [f"Accuracy: {'; '.join(_mean(of) for of in dict.fromkeys(good['accuracy_of']))}."]
    if accuracy.PERPLEXITY in placed.plot.y:
        texts = {task["title"] for task in tasks if task["metrics"][0]["unit"] == "perplexity"}
        parts += [f"Perplexity: per word on {name}." for name in sorted(texts)]
    if accuracy.uses(placed.plot):
        parts.append("Error bars of accuracy: 1.96 standard errors over the questions, assuming independent tasks.")
    else:
        parts.append("Numbers beside points on the frontier: their accuracy.")
    if placed.plot.kind == "pareto" and accuracy.uses(placed.plot):
        parts.append(front_words(placed))
    chance = sorted(set(good["accuracy_chance"].dropna()))
    if set(good["weights"]) & {"random_init", "dummy"}:
        level = f"at chance level ({chance[0]:.2f})" if chance and chance[-1] - chance[0] < 0.005 else "at chance level"
        if any(task["harness"] == "vlmeval" for task in tasks):  # an answer that names no choice is wrong there
            level = "at or below chance level"
        parts.append(f"Random weights: accuracy is {level}; differences are noise.")
    if tokens_are_wrong(plan, rows):
        parts.append(f"{WRONG_TOKENS}.")
    if "fixtures" in {task["data"]["source"] for task in tasks}:
        parts.append("Questions are the project's own small sets, not the published ones.")
    shown = rows if accuracy.uses(placed.plot) else rows[rows["accuracy_status"].notna()]
    lost = [f"{row['model_title']} ({_why(row)})" for _, row in shown.iterrows() if _why(row)]
    if lost:
        parts.append(f"Without a value: {', '.join(dict.fromkeys(lost))}.")
    return " ".join(parts)


def _mean(of: str) -> str:
    """Short form of the table's ``made_of``."""
    head, _, tasks = of.partition(", all counting the same: ")
    names = [task.partition(" ")[0] for task in tasks.split(", ")] if tasks else []
    return f"mean of {head} ({', '.join(names)})" if tasks else of


def _tasks(plan: Plan, experiment: str, engines: set[str]) -> list[Task]:
    """Accuracy tasks of an experiment on some engine configurations."""
    asked = [r for r in plan["experiments"][experiment].get("accuracy") or () if r["engine"] in engines]
    return [plan["accuracy"][r["harness"]]["cells"][f"{r['engine']}/{r['cell']}"]["task"] for r in asked]


def _why(row: Any) -> str:
    if row["status"] != "ok":
        return f"speed: {style.status_style(row['status'])[0]}"
    status = row["accuracy_status"]
    return "" if status == "ok" else f"accuracy: {style.status_style(status)[0]}"
