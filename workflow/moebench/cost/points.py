"""Points that are measured or to be predicted: a table of machines, models and workloads as arrays.

Columns: ``machine, model, precision, tp, ep, pp, dp, batch, input, output, metric``; ``engine``, ``source``,
``protocol``, ``unit`` and ``value`` if there are any.  And what a model or a run may have of its own:
``kv_precision``; ``experts`` and ``expert_ffn`` (pruned), ``top_k`` (capped); ``images`` per prompt of ``image_size``
pixels a side; ``draft_model`` with ``draft_tokens`` per step and their ``acceptance``; the options of :data:`SERVER`.
A row that cannot be predicted keeps its place and says why.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moebench.config import Architecture, Config, Hardware
from moebench.cost import calibrated as cal
from moebench.cost import cells, limits
from moebench.cost.inputs import Floats, Layout, Sizes, stack
from moebench.cost.vision import image_tokens, tiles
from moebench.errors import UserError

COLUMNS = ("machine", "model", "precision", "tp", "ep", "pp", "dp", "batch", "input", "output", "metric")
NUMBERS = ("tp", "ep", "pp", "dp", "batch", "input", "output")

PLAIN = {"bf16": "bfloat16", "bfloat16": "bfloat16", "fp16": "float16", "float16": "float16"}
WIDTHS = {"fp8": 1.0, "int8": 1.0, "int4": 0.5 + 2 / 128, "fp4": 0.5 + 1 / 32}
"""Bytes of a quantized weight with its scales: of 4 bits one of 2 bytes per 128 (int4), of 1 byte per 32 (MXFP4)."""
SAME = {
    "fp8_block": "fp8",
    "w8a8": "int8",
    "awq": "int4",
    "gptq": "int4",
    "w4a16": "int4",
    "mxfp4": "fp4",
    "nvfp4": "fp4",
}

SCALED = ("deepseek_v3", "deepseek_v32", "kimi_k2", "minimax_m2", "qwen3", "qwen3_moe", "qwen3_next", "qwen3_5_moe")
"""Families whose developers publish fp8 weights with a scale per block of 128 x 128 (``fp8_block``)."""

NOMINAL = {"inferencex": 0.9}
"""Mean of a source's token counts over what it calls them: InferenceX draws lengths from 0.8 to 1 times the nominal."""

SERVER: dict[str, float] = {"step_tokens": 8192, "graph_tokens": cal.GRAPH_TOKENS, "piecewise": 0}
"""Options of a server that are columns, and vLLM's defaults on these machines: most tokens of a step, of a step that is
one CUDA graph, and whether graphs are cut at attention."""
SERVERS = {
    ("inferencex", "gpt-oss-120b"): {"graph_tokens": 2048},
    ("inferencex", "minimax-m2"): {"piecewise": 1},
}
"""What a source starts its servers of a model with, by its launch scripts (InferenceX, benchmarks/single_node), where
the table has no such column."""

SUFFIXES = ("-instruct", "-chat", "-it", "-hf", "-fp8", "-fp4", "-nvfp4", "-bf16", "-awq", "-gptq", "-fp8-kv", "-v0.1")


@dataclass(frozen=True)
class Metric:
    """The metric that a row names."""

    name: str
    """ttft, tpot, e2e or throughput."""
    served: bool
    """Closed loop of clients, rather than one batch that starts together."""
    scale: float
    """Of s, or of tokens/s."""


def metric(name: str, protocol: str, unit: str) -> Metric | None:
    """Read a metric's name, e.g. ``tpot_serving``; None if it is not known.

    ``itl`` is ``tpot``; ``throughput`` counts output tokens/s of all GPUs.  Without the suffix ``protocol`` decides,
    without that it is served.  Times are in ms unless ``unit`` says s or us.
    """
    words = name.strip().lower().replace("-", "_")
    base, _, mode = words.rpartition("_") if words.endswith(("_serving", "_static")) else (words, "", protocol)
    known = {"ttft": "ttft", "tpot": "tpot", "itl": "tpot", "e2e": "e2e", "e2el": "e2e", "latency": "e2e",
             "throughput": "throughput", "output_throughput": "throughput"}  # fmt: skip
    if base not in known:
        return None
    scale = {"s": 1.0, "us": 1e6, "ms": 1e3}.get(str(unit).strip().lower(), 1e3)
    return Metric(known[base], str(mode).strip().lower() != "static", 1.0 if known[base] == "throughput" else scale)


def model(name: str, config: Config) -> tuple[str, Architecture] | None:
    """The model that a row names: its file's name and its sizes.

    Spelling: case, an owner before a slash and endings like ``-instruct`` or ``-fp8`` do not count; the beginning of a
    name is enough if it is unique.
    """
    shapes, registry = config.shapes(), config.names("models")
    short = name.strip().lower().rpartition("/")[2].replace("_", "-").replace(" ", "-")
    while cut := next((s for s in SUFFIXES if short.endswith(s) and short not in (*shapes, *registry)), None):
        short = short.removesuffix(cut)
    if short not in shapes and short not in registry:
        found = {n for n in (*shapes, *registry) if n.startswith(f"{short}-")}
        if len(found) != 1:
            return None
        (short,) = found
    shape = shapes.get(short)
    if shape is None or shape.architecture is None:
        file = shape.same_as if shape and shape.same_as else short
        return file, config.model(file).architecture
    return shape.name, shape.architecture


def machine(name: str, config: Config) -> Hardware | None:
    """The machine type that a row names, as its file or its GPU is called; of several the one with the most memory."""
    short = name.strip().lower().replace("_", "-").replace(" ", "-").removeprefix("nvidia-")
    known = [config.hardware(n) for n in config.names("hardware")]
    found = [h for h in known if h.name == short or h.name.startswith(f"{short}-") or h.gpu_model == short
             or (h.device_name or "").lower().replace(" ", "-").removeprefix("nvidia-") == short
             or set(short.split("-")) <= set(h.name.split("-"))]  # fmt: skip
    return max(found, key=lambda h: h.memory_bytes or 0, default=None)


def precision(name: str, architecture: Architecture, hardware: Hardware, cache: str = "") -> cal.Precision | None:
    """Formats of a precision on a machine; None if it is not known.

    ``fp8``, ``int8`` and ``int4`` cover attention, experts and blocks; ``fp4`` of a mixture its experts only (as
    gpt-oss and NVIDIA's checkpoints have it).  Arithmetic is in the data type of the activations: of ``int4``, and of
    what a machine has no peak for, the plain one.  ``cache``: precision of the KV cache, of two bytes by default.
    """
    word = name.strip().lower()
    word = SAME.get(word, word)
    plain_name = PLAIN.get(word, "bfloat16")
    if word not in PLAIN and word not in WIDTHS:
        return None
    plain = hardware.peak[plain_name].flops_per_s if plain_name in hardware.peak else float("nan")
    width = WIDTHS.get(word, 2.0)
    fast = hardware.peak[word].flops_per_s if word in hardware.peak and word != "int4" else plain
    cached = cache.strip().lower()
    if cached not in ("", "auto", "nan", "fp8", *PLAIN):
        return None
    experts_only = word == "fp4" and architecture.experts is not None
    others = (2.0, plain) if experts_only else (width, fast)
    return cal.Precision(
        attention=others[0], blocks=others[0], experts=width, plain=2.0, cache=1.0 if cached == "fp8" else 2.0,
        attention_peak=others[1], blocks_peak=others[1], experts_peak=fast, plain_peak=plain,
        scaled=word == "fp8" and (name.strip().lower() == "fp8_block" or architecture.family in SCALED),
    )  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """Rows of one machine as arrays."""

    rows: np.ndarray
    """Their places in the table."""
    hardware: Hardware
    setup: cal.Setup
    capacity_tokens: Floats
    work: dict[str, Floats]
    """batch, input and output, of the tokens there really are."""
    metrics: list[Metric]
    tiles: Floats
    """Of the images of a prompt."""
    step_tokens: Floats
    draft: cal.Speculation | None = None

    def predict(self, constants: cal.Constants, reduce: cal.AllReduce) -> Floats:
        """Predicted values of the rows, in their units."""
        setup = replace(self.setup, constants=constants, all_reduce=reduce)
        asked = self.work["batch"], self.work["input"], self.work["output"]
        more: dict[str, Any] = {"tiles": self.tiles, "speculation": None, "step_tokens": self.step_tokens}
        if self.draft:
            with_constants = replace(self.draft.draft, constants=constants, all_reduce=reduce)
            more["speculation"] = replace(self.draft, draft=with_constants)
        found = np.full(len(self.rows), np.nan)
        for served in {m.served for m in self.metrics}:
            times = (
                cal.serving(setup, *asked, capacity_tokens=self.capacity_tokens, **more)
                if served
                else cal.static(setup, *asked, **more)
            )
            values = {"ttft": times.ttft_s, "tpot": times.tpot_s, "e2e": times.e2e_s}
            values["throughput"] = self.work["batch"] * self.work["output"] / times.e2e_s
            for m in {m for m in self.metrics if m.served == served}:
                here = np.array([other == m for other in self.metrics])
                found[here] = m.scale * values[m.name][here]
        return found


@dataclass(frozen=True)
class Points:
    """A table and its rows that can be predicted."""

    frame: pd.DataFrame
    batches: list[Batch]
    reasons: dict[int, str]
    """Why a row cannot, by its place."""
    files: dict[int, str]
    """Name of the model's file, by place."""
    refused: dict[int, str]
    """Of ``reasons`` those of rows with a value that no engine takes."""

    def check(self) -> None:
        """Raises UserError with the first row that is refused."""
        if self.refused:
            first, more = next(iter(self.refused.values())), len(self.refused) - 1
            raise UserError(f"{first}{f' (and {more} more rows)' if more else ''}")


def load(path: Path) -> pd.DataFrame:
    """Read a table of points, plain or compressed.  Raises UserError for a file that is not there or no CSV."""
    try:
        return pd.read_csv(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a CSV file of points") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a CSV file ({error}); give one with the columns {', '.join(COLUMNS)}") from None


def check_columns(frame: pd.DataFrame, path: str) -> tuple[pd.DataFrame, dict[int, str]]:
    """The table with parsed numbers, and the problem of each invalid row by index.  Raises UserError naming a missing
    column."""
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise UserError(f"{path}: column {missing[0]!r} is missing; a row needs {', '.join(COLUMNS)}")
    frame = frame.reset_index(drop=True).copy()
    refused: dict[int, str] = {}
    for name in NUMBERS:
        numbers = pd.to_numeric(frame[name], errors="coerce")
        low = 0 if name in ("input",) else 1
        wrong = ~(numbers >= low) | ~np.isfinite(numbers.to_numpy(float))
        for place in map(int, np.flatnonzero(wrong)):
            refused.setdefault(place, f"{name} is {frame[name][place]}; give {low} or more")
        frame[name] = numbers.astype(float)
    return frame, refused


def read(frame: pd.DataFrame, config: Config, path: str = "points") -> Points:
    """Look up machine, model, precision and metric of every row; refuse one with a value that no engine accepts."""
    frame, refused = check_columns(frame, path)
    reasons: dict[int, str] = {}
    files: dict[int, str] = {}
    parts: dict[str, list[tuple[int, _Row]]] = {}
    lookup = _Lookup(config)
    for i, row in enumerate(frame.to_dict("records")):
        if i in refused:
            continue
        try:
            found = lookup.row(row)
        except UserError as error:
            refused[i] = str(error)
            continue
        if isinstance(found, str):
            reasons[i] = found
        else:
            files[i] = found.file
            parts.setdefault(found.hardware, []).append((i, found))
    batches = [_batch(frame, config.hardware(name), rows) for name, rows in parts.items()]
    refused = {i: f"{path}: row {i + 2}: {why}" for i, why in sorted(refused.items())}
    return Points(frame, batches, reasons | refused, files, refused)


@dataclass(frozen=True)
class _Row:
    """What a row names, as the model takes it."""

    file: str
    hardware: str
    sizes: Sizes
    precision: cal.Precision
    layout: Layout
    traits: cal.Traits
    metric: Metric
    image_tokens: int
    tiles: int
    draft: tuple[Sizes, cal.Precision, cal.Traits]
    """Of the draft model; of the model itself if there is none."""
    draft_tokens: float
    acceptance: float
    server: dict[str, float]


class _Lookup:
    """Looks up the names in rows, each name once."""

    def __init__(self, config: Config) -> None:
        self.model = functools.cache(lambda name: model(name, config))
        self.machine = functools.cache(lambda name: machine(name, config))

    def row(self, row: Mapping[Any, Any]) -> _Row | str:
        """What a row names, or why it cannot be predicted.  Raises UserError for a value that no engine accepts."""
        found, hardware = self.model(str(row["model"])), self.machine(str(row["machine"]))
        asked = metric(str(row["metric"]), str(row.get("protocol", "serving")), str(row.get("unit", "ms")))
        if found is None:
            return f"model {row['model']}: no file in config/models or config/shapes describes it"
        if hardware is None:
            return f"machine {row['machine']}: no file in config/hardware describes it"
        if asked is None:
            return f"metric {row['metric']}: not one of ttft, tpot, itl, e2e, throughput"
        architecture = _changed(found[1], row)
        cached = str(row.get("kv_precision", ""))
        width = precision(str(row["precision"]), architecture, hardware, cached)
        if width is None:
            return f"precision {row['precision']}{f', KV cache {cached}' if cached else ''}: not known"
        if hardware.bandwidth_bytes_per_s is None or np.isnan(width.plain_peak):
            return f"machine {row['machine']}: its constants are unknown"
        images, edge = int(_optional(row, "images") or 0), _optional(row, "image_size")
        size = None if edge is None else int(edge)
        shown, seen = tiles(architecture, images, size), image_tokens(architecture, images, size)
        if shown is None or seen is None:
            return f"model {row['model']}: its vision tower is not described, or column image_size is empty"
        sizes, traits = Sizes.of(architecture), cal.Traits.of(architecture)
        layout = Layout(tp=row["tp"], pp=row["pp"], dp=row["dp"], ep=row["ep"])
        if layout.ranks < layout.ep <= sizes.experts:
            return f"ep is {row['ep']:g} on {layout.ranks:g} GPUs of a stage: no engine distributes experts like this"
        limits.check(sizes, layout, row["batch"], row["input"])
        draft = (sizes, width, traits)
        drafted, acceptance = _optional(row, "draft_tokens") or 0.0, _optional(row, "acceptance")
        if drafted:
            named = self.model(str(row.get("draft_model")))
            if named is None:
                return f"draft_model {row.get('draft_model')}: no file in config/models or config/shapes describes it"
            if acceptance is None:
                return "speculative decoding: column acceptance is empty, and acceptance cannot be predicted"
            if not 0 <= acceptance <= 1:
                raise UserError(f"acceptance is {acceptance:g}: give the share of draft tokens that is accepted")
            plain = precision("bf16", named[1], hardware, cached)
            assert plain is not None
            draft = (Sizes.of(named[1]), plain, cal.Traits.of(named[1]))
            limits.check(draft[0], layout, row["batch"], row["input"])
        server = SERVER | SERVERS.get((str(row.get("source")), found[0]), {})
        server |= {name: value for name in server if (value := _optional(row, name)) is not None}
        speculation = draft, drafted, acceptance or 0.0
        return _Row(found[0], hardware.name, sizes, width, layout, traits, asked, seen, shown, *speculation, server)


def _optional(row: Mapping[Any, Any], name: str) -> float | None:
    """A number of a column that need not be there; None if it is empty.  Raises UserError for one below 0."""
    given = row.get(name)
    value = None if given is None else pd.to_numeric(str(given), errors="coerce")
    if value is None or pd.isna(value):
        return None
    if value < 0:
        raise UserError(f"{name} is {value:g}: give 0 or more")
    return float(value)


def _changed(architecture: Architecture, row: Mapping[Any, Any]) -> Architecture:
    """The architecture with the row's own ``experts``, ``expert_ffn`` and ``top_k``, where it has any.

    Raises UserError for a dense model, and for no or more than all experts."""
    named = {"count": "experts", "ffn_size": "expert_ffn", "top_k": "top_k"}
    wanted = {field: int(value) for field, name in named.items() if (value := _optional(row, name)) is not None}
    if not wanted:
        return architecture
    if architecture.experts is None:
        name = named[next(iter(wanted))]
        raise UserError(f"{name} is given for {row['model']}, which has no experts; leave it empty")
    block = architecture.experts.model_copy(update=wanted)
    if min(wanted.values()) < 1 or block.top_k > block.count:
        raise UserError(f"top_k is {block.top_k} of {block.count} experts: choose between 1 and the number of experts")
    return architecture.model_copy(update={"experts": block})


NO_TABLE = cal.AllReduce((1.0,), {2: (1e-6,)}, {2: (1e-6,)}, 1.0)
"""Stands where all-reduces do not count."""


def _batch(frame: pd.DataFrame, hardware: Hardware, rows: list[tuple[int, _Row]]) -> Batch:
    places, found = np.array([i for i, _ in rows]), [row for _, row in rows]
    layout = stack([row.layout for row in found])
    setup = _setup([(row.sizes, row.precision, row.traits) for row in found], layout, hardware)
    share = np.array([NOMINAL.get(str(s), 1.0) for s in frame["source"].iloc[places]]) if "source" in frame else 1.0
    work = {"batch": frame["batch"].to_numpy(float)[places]}
    work |= {name: frame[name].to_numpy(float)[places] * share for name in ("input", "output")}
    work["input"] = work["input"] + np.array([row.image_tokens for row in found], float)
    capacity = cal.kv_capacity_tokens(setup, hardware.memory_bytes or float("nan"), hardware.usable_memory_fraction)
    draft = None
    if any(row.draft_tokens for row in found):
        drafted, accepted = (np.array([getattr(row, n) for row in found]) for n in ("draft_tokens", "acceptance"))
        draft = cal.Speculation(_setup([row.draft for row in found], layout, hardware), drafted, accepted)
    pictures = np.array([row.tiles for row in found], float)
    server = {name: np.array([row.server[name] for row in found], float) for name in SERVER}
    setup = replace(setup, graph_tokens=server["graph_tokens"], piecewise=server["piecewise"])
    metrics = [row.metric for row in found]
    return Batch(places, hardware, setup, capacity, work, metrics, pictures, server["step_tokens"], draft)


def _setup(parts: list[tuple[Sizes, cal.Precision, cal.Traits]], layout: Layout, hardware: Hardware) -> cal.Setup:
    sizes, widths, traits = (stack(list(part)) for part in zip(*parts, strict=True))
    return cal.Setup(sizes, widths, layout, cells.ideal(hardware), cal.Constants(), NO_TABLE, traits)
