"""Fits the constants of the calibrated model and reports how well they predict points they were not fitted on.

Two sources, two steps.  Kernel tables (one kernel alone, replayed in a CUDA graph) give what a kernel does: fifteen
constants and the all-reduces.  Serving points, with those held fixed, give sixteen for everything around the kernels.
Both are least squares on logarithms with a soft-L1 loss (scipy): 2x too slow weighs as much as 2x too fast, and a
point that the engine spoiled weighs little.  Serving constants are held near a prior by a term each: value and sigma of
its logarithm in :data:`PRIOR`.  Nothing is fitted per point, per model or per layout.

Held out (:func:`splits`) are whole configurations: all metrics and repeats of one model, machine, layout and workload.
A model is left out with the MoE kernel times of its shape, a machine with all of its kernel times and all-reduces.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import least_squares

from moebench.config import AllReduceTable, Config, Hardware
from moebench.cost import calibrated as cal
from moebench.cost import cells, points
from moebench.cost.inputs import Floats
from moebench.errors import UserError

SEED = 0
SEEDS = range(5)
"""Of the halves at random."""
EXPONENT = 1.01
"""Of the power law that tokens per expert follow in the MoE tables."""
SPREAD = 0.3
"""Assumed relative spread of a serving point about the model; what priors weigh against."""

LINEAR = 0.1
"""Relative error of a serving point beyond which it weighs by the error instead of its square: what an engine spoiled
is off by far more."""

PRIOR: dict[str, tuple[float, float]] = {
    "dense_bytes": (1.2, 0.05),
    "layer_passes": (10.0, 0.5),
    "layer_s": (35e-6, 0.15),
    "matrix_s": (5e-6, 0.5),
    "piecewise_layer_s": (15e-6, 0.5),
    "low_matrix_s": (4e-6, 0.3),
    "sequence_s": (3e-6, 1.0),
    "step_s": (0.2e-3, 0.7),
    "prefill_layer_s": (60e-6, 0.7),
    "request_s": (10e-3, 0.7),
    "prompt_token_s": (4e-6, 0.5),
    "waited_steps": (1.5, 0.3),
    "opening_share": (0.1, 0.15),
    "expert_correlation": (0.032, 0.4),
    "moe_token_s": (0.03e-6, 0.5),
    "prefill_reduces": (0.8, 0.4),
}
"""Constants fitted on serving points.  Bytes and shares from the GEMM tables; layers and blocks from the sum of their
kernels' shortest times (attention 12 us, matrices 3 to 8 us each, norms, activations); one to two steps are scheduled
when a request comes; InferenceX sends ten times as many requests as clients, so a tenth opens a run; the correlation is
that of the MoE tables' power law for 64 tokens and 4 of 128 experts (a variance of popularity as large as its mean
squared); the others are orders of magnitude."""

KERNEL: dict[str, float] = {
    "expert_bytes": 1.0,
    "cache_bytes": 1.2,
    "cache_bytes_low": 1.6,
    "dense_share": 0.75,
    "dense_share_low": 0.6,
    "expert_share": 0.5,
    "expert_share_low": 0.35,
    "attention_share": 0.5,
    "expert_share_packed": 0.26,
    "tile_tokens": 128.0,
    "tile_tokens_packed": 48.0,
    "expert_passes": 3.0,
    "scaled_matrix_s": 90e-6,
    "moe_layer_s": 40e-6,
    "deal_layer_s": 10e-6,
}
"""Constants fitted on kernel tables; the values are where a fit starts, and what stands where no table is left."""

SMALL = 20e6
"""Weights of a matrix below which a table's time of a block-scaled product is that of starting it."""

UNITS = {name: "s" for name in (*PRIOR, *KERNEL) if name.endswith("_s")}
UNITS |= {name: "tokens" for name in KERNEL if name.startswith("tile_")}
MOE_FORMATS = {
    "bfloat16": ("bfloat16", 2.0),
    "fp8_block": ("fp8", 1 + 4 / 128**2),
    "w4a16_mxfp4": ("bfloat16", 0.5 + 1 / 32),
    "int4_wo": ("bfloat16", 0.5 + 2 / 128),
}
"""Peak and bytes per weight of the MoE kernels that vLLM takes on these machines: Triton, for 4 bits Marlin."""
UNGATED = {(512, 22, 2048), (512, 22, 1024), (128, 6, 2688)}
"""(experts, top-k, hidden size) in the MoE tables whose experts seem to have two matrices: their slopes are 2/3 of the
others', which have three."""


# ------------------------------------------------------------------------------------------- kernels


@dataclass(frozen=True)
class Tables:
    """Kernel tables, as in shared/measured."""

    moe: pd.DataFrame
    gemm: pd.DataFrame
    decode: pd.DataFrame
    prefill: pd.DataFrame
    reduces: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> Tables:
        """Read a folder of tables, plain or .xz.  Raises UserError naming the one that is missing."""

        def table(name: str) -> pd.DataFrame:
            found = next((p for p in (folder / f"{name}.csv", folder / f"{name}.csv.xz") if p.is_file()), None)
            if found is None:
                raise UserError(f"--kernels {folder}: {name}.csv is missing; give the folder of all five kernel tables")
            return pd.read_csv(found)

        names = ("moe_kernels", "gemm_sample", "generation_attention_sample", "context_attention_sample", "all_reduce")
        return cls(*(table(name) for name in names))

    def without(self, machine: str | None = None, shape: tuple[int, int, int] | None = None) -> Tables:
        """The tables without a machine, or without the MoE kernels of a shape (hidden, expert width, experts)."""
        tables = (self.moe, self.gemm, self.decode, self.prefill, self.reduces)
        kept = [t[t["machine"] != machine] for t in tables]
        if shape:
            moe = kept[0]
            same = (moe["hidden_size"] == shape[0]) & (moe["inter_size"] == shape[1]) & (moe["num_experts"] == shape[2])
            kept[0] = moe[~same]
        return Tables(*kept)


def _fit(start: dict[str, float], residual: Callable[[dict[str, float]], Any]) -> dict[str, float]:
    """Least squares on logarithms of positive constants."""
    first = np.log(list(start.values()))
    found = least_squares(
        lambda x: residual(dict(zip(start, np.exp(x), strict=True))), first, loss="soft_l1", f_scale=0.1
    )
    return {name: float(value) for name, value in zip(start, np.exp(found.x), strict=True)}


def moe_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that constants are fitted on: gated experts, split by width over at most 8 or dealt to at most 8; Triton
    kernels, and of experts of 4 bits Marlin's, not dealt."""
    shapes = zip(frame["num_experts"], frame["topk"], frame["hidden_size"], strict=True)
    ungated = [shape in UNGATED for shape in shapes]
    marlin, packed = frame["kernel_source"].str.contains("marlin"), frame["moe_dtype"].isin(["w4a16_mxfp4", "int4_wo"])
    keep = frame["kernel_source"].str.contains("triton") & ~packed & (frame["moe_ep_size"] <= 8)
    keep = (keep | marlin & (frame["moe_ep_size"] == 1)) & (frame["moe_tp_size"] <= 8)
    return frame[keep & ~np.array(ungated, bool) & frame["moe_dtype"].isin(MOE_FORMATS)]


@functools.cache
def _power_law(experts: int, top_k: int, tokens: int, groups: int, draws: int = 16) -> tuple[float, float]:
    """Distinct experts and routed tokens of the fullest group, where tokens per expert follow the tables' power law."""
    low, high = (1.0, 0.8 * tokens) if tokens * top_k > experts else (0.01, 2.0)
    rest = 1 - EXPONENT
    place = np.random.default_rng(SEED).random((draws, experts))
    drawn = (place * (high**rest - low**rest) + low**rest) ** (1 / rest)
    share = drawn / drawn.sum(1, keepdims=True) * tokens * top_k
    count = np.round(share)
    for row, over in zip(count, share - count, strict=True):  # what rounding lost or added, where it was most
        while lost := int(tokens * top_k - row.sum()):
            most = over if lost > 0 else np.where(row > 0, -over, -np.inf)
            row[np.argsort(-most)[: abs(lost)]] += np.sign(lost)
    ranks = count.reshape(draws, groups, -1)
    fullest = ranks[np.arange(draws), ranks.sum(2).argmax(1)]
    return float((fullest > 0).sum(1).mean()), float(fullest.sum(1).mean())


def routing(rows: pd.DataFrame) -> tuple[Floats, Floats]:
    """Distinct experts and routed tokens of the rank that was measured, the fullest, in rows of a MoE table.

    The tables are called ``power_law_1.01``: aiconfigurator draws each expert's tokens from that law between 1 and 0.8
    times the tokens (between 0.01 and 2 where there are no more of them than experts), scales them to n k and rounds.
    """
    keys = rows[["num_experts", "topk", "num_tokens", "moe_ep_size"]].astype(int).itertuples(index=False)
    found = np.array([_power_law(*key) for key in keys])
    return found[:, 0], found[:, 1]


def moe_s(rows: pd.DataFrame, constants: dict[str, float], machines: dict[str, Hardware]) -> Floats:
    """Time of MoE kernels, s: the expert terms of :mod:`calibrated`, with experts dealt to ``moe_ep_size`` groups."""
    names = ("num_experts", "topk", "num_tokens", "moe_ep_size", "moe_tp_size", "hidden_size", "inter_size")
    column = {name: rows[name].to_numpy(float) for name in names}
    distinct, routed = routing(rows)
    piece = 3 * column["hidden_size"] * column["inter_size"] / column["moe_tp_size"]
    bandwidth = np.array([machines[m].bandwidth_bytes_per_s for m in rows["machine"]], float)
    arithmetic = [MOE_FORMATS[d][0] for d in rows["moe_dtype"]]
    width = np.array([MOE_FORMATS[d][1] for d in rows["moe_dtype"]])
    peak = np.array([machines[m].peak[a].flops_per_s for m, a in zip(rows["machine"], arithmetic, strict=True)])
    plain = np.where(width < 1, constants["expert_share_packed"], constants["expert_share"])
    share = np.where(np.array(arithmetic) == "fp8", constants["expert_share_low"], plain)
    tile = np.where(width < 1, constants["tile_tokens_packed"], constants["tile_tokens"])
    loaded = distinct * width * constants["expert_bytes"] / bandwidth
    filled = 2.0 * (routed + distinct * tile / 2) / (share * peak)
    moved = constants["expert_passes"] * routed * (2 * column["hidden_size"] + piece / column["hidden_size"]) * 2.0
    rate = np.array([cells.ideal(machines[m]).processors for m in rows["machine"]]) * cal.PROCESSOR_BYTES_PER_S
    start = constants["moe_layer_s"] + constants["deal_layer_s"] * (column["moe_ep_size"] > 1)
    return np.asarray(start + piece * np.hypot(loaded, filled) + moved / rate)


def kernel_constants(tables: Tables, machines: dict[str, Hardware]) -> dict[str, float]:
    """The constants of single kernels; where no row is left, those of :data:`KERNEL`.

    Experts: least squares on the MoE table, every data type with the same weight.  ``dense_share``: median of bfloat16
    products with all sides from 1024 on.  Attention: least squares on bytes (decoding) and operations (prefill) over
    12 us of start.
    """
    found = dict(KERNEL)
    moe = moe_rows(tables.moe)
    if len(moe):
        names = [name for name in KERNEL if name.startswith(("expert_", "tile_")) or name.endswith("_layer_s")]
        rows_of = moe["moe_dtype"].value_counts()
        weight = np.sqrt(len(moe) / len(rows_of) / moe["moe_dtype"].map(rows_of).to_numpy(float))
        seen = np.log(moe["us"].to_numpy(float) * 1e-6)
        found |= _fit({n: KERNEL[n] for n in names}, lambda c: (np.log(moe_s(moe, c, machines)) - seen) * weight)
    large = tables.gemm[tables.gemm[["m", "n", "k"]].min(axis=1) >= 4096]
    for name, kinds, numbers in (
        ("dense_share", ["bfloat16"], "bfloat16"),
        ("dense_share_low", ["fp8", "fp8_block"], "fp8"),
    ):
        gemm = large[large["gemm_dtype"].isin(kinds)]
        if len(gemm):
            peak = np.array([machines[m].peak[numbers].flops_per_s for m in gemm["machine"]])
            found[name] = float(np.median(2.0 * gemm["m"] * gemm["n"] * gemm["k"] / (gemm["us"] * 1e-6) / peak))
    scaled = tables.gemm[(tables.gemm["gemm_dtype"] == "fp8_block") & (tables.gemm["n"] * tables.gemm["k"] < SMALL)]
    if len(scaled):
        found["scaled_matrix_s"] = float(scaled["us"].median()) * 1e-6
    for name, table, kind in (("cache_bytes", tables.decode, "bfloat16"), ("cache_bytes_low", tables.decode, "fp8"),
                              ("attention_share", tables.prefill, "bfloat16")):  # fmt: skip
        rows = table[(table["kv_cache_dtype"] == kind) & (table["us"] > 200)]
        if len(rows):
            decode = name != "attention_share"
            ideal = _attention_s(rows, machines, decode)
            over = np.log(np.maximum(rows["us"].to_numpy(float) * 1e-6 - 12e-6, 1e-6) / ideal)
            found[name] = float(np.exp(np.median(over) * (1 if decode else -1)))
    return found


def _attention_s(rows: pd.DataFrame, machines: dict[str, Hardware], decode: bool) -> Floats:
    """Ideal time of attention kernels, s: KV bytes over bandwidth, or causal operations over the plain peak."""
    column = {n: rows[n].to_numpy(float) for n in
              ("batch_size", "isl", "step", "num_heads", "num_key_value_heads", "head_dim")}  # fmt: skip
    machine = [machines[m] for m in rows["machine"]]
    if decode:
        values = 2 * column["batch_size"] * (column["step"] + 1) * column["num_key_value_heads"] * column["head_dim"]
        width = np.where(rows["kv_cache_dtype"] == "fp8", 1.0, 2.0)
        return np.asarray(width * values / np.array([m.bandwidth_bytes_per_s for m in machine], float))
    operations = 2 * column["batch_size"] * column["isl"] ** 2 * column["num_heads"] * column["head_dim"]
    return np.asarray(operations / np.array([m.peak["bfloat16"].flops_per_s for m in machine]))


def reduce_table(frame: pd.DataFrame, source: str) -> AllReduceTable:
    """The all-reduce table of one machine, every second size; published sizes count elements of two bytes.

    That they are elements follows from the largest: 2^29 of them over 8 GPUs in 4.0 ms are 470 GB/s each way as bytes
    of bfloat16, which is what NVLink gives; as bytes it would be half.
    """
    elements = sorted(frame["elements_or_bytes_as_published"].unique())[::2]
    times: dict[str, dict[int, tuple[float, ...]]] = {"graph": {}, "eager": {}}
    for (backend, gpus), rows in frame.groupby(["backend", "num_gpus"]):
        by_size = rows.groupby("elements_or_bytes_as_published")["us"].median().reindex(elements)
        filled = by_size.interpolate(limit_direction="both")
        times[str(backend).removeprefix("vllm_")][int(str(gpus))] = tuple(round(float(t), 1) for t in filled)
    return AllReduceTable(
        message_bytes=tuple(2.0 * e for e in elements), graph_us=times["graph"], eager_us=times["eager"], source=source
    )


# ------------------------------------------------------------------------------------------- serving


@dataclass(frozen=True)
class Model:
    """Fitted constants, and the all-reduces of machines by the name of their file."""

    constants: dict[str, float]
    reduces: dict[str, cal.AllReduce]

    def predict(self, known: points.Points) -> Floats:
        """Predicted values, in the rows' units; NaN if a row cannot be predicted."""
        constants, found = cal.Constants(**self.constants), np.full(len(known.frame), np.nan)
        for batch in known.batches:
            found[batch.rows] = batch.predict(constants, self.reduce(batch.hardware))
        return found

    def reduce(self, hardware: Hardware) -> cal.AllReduce:
        """The machine's all-reduces, or any other's, which then scale with its link."""
        return self.reduces.get(hardware.name) or next(iter(self.reduces.values()))


def prior(kernel: dict[str, float], reduces: dict[str, cal.AllReduce]) -> Model:
    """Kernel constants with the priors of the others: no served point."""
    return Model(kernel | {name: value for name, (value, _) in PRIOR.items()}, reduces)


def fit(known: points.Points, kernel: dict[str, float], reduces: dict[str, cal.AllReduce]) -> Model:
    """Fit the serving constants on points with values, the kernels' held fixed.  Raises UserError without a point,
    and for a row that is refused."""
    known.check()
    values = known.frame["value"].to_numpy(float)
    good = np.isfinite(values) & (values > 0)
    good[list(known.reasons)] = False
    if not good.any():
        raise UserError("--fit: no row has a value and a known model, machine, metric and precision")
    names, middle = list(PRIOR), np.log([value for value, _ in PRIOR.values()])
    sigma = np.array([spread for _, spread in PRIOR.values()])
    seen = np.log(values[good])

    def model(x: Floats) -> Model:
        return Model(kernel | {n: float(v) for n, v in zip(names, np.exp(x), strict=True)}, reduces)

    def residual(x: Floats) -> Floats:
        r = (np.log(model(x).predict(known)[good]) - seen) / LINEAR
        soft = np.sign(r) * np.sqrt(2 * (np.sqrt(1 + r * r) - 1))  # soft L1, of the points and not of the priors
        return np.concatenate([soft * LINEAR / SPREAD, (x - middle) / sigma])

    return model(least_squares(residual, middle, xtol=1e-6, ftol=1e-6).x)


# ------------------------------------------------------------------------------------------ protocol


@dataclass(frozen=True)
class Split:
    """Points to fit on and points to predict."""

    kind: str
    """seen (half at random), model, machine or source (that one left out)."""
    left_out: str
    train: np.ndarray
    test: np.ndarray
    """Places in the table; no configuration is in both."""


KINDS = ("seen", "model", "machine", "source")
CONFIGURATION = ("machine", "engine", "model", "precision", "tp", "ep", "pp", "dp", "batch", "input", "output")


def splits(frame: pd.DataFrame) -> Iterator[Split]:
    """Half of the configurations at random, by several seeds, then every model, machine and source left out.

    The only source is left out, too: then only kernel tables and priors remain.
    """
    columns = [c for c in CONFIGURATION if c in frame]
    key = frame[columns].astype(str).agg("|".join, axis=1)
    names = np.array(sorted(key.unique()))
    for seed in SEEDS:
        chosen = set(np.random.default_rng(seed).permutation(names)[: len(names) // 2])
        inside = key.isin(chosen).to_numpy()
        yield Split("seen", f"half at random, seed {seed}", np.flatnonzero(inside), np.flatnonzero(~inside))
    for column in KINDS[1:]:
        for name in sorted(frame[column].unique()) if column in frame else ():
            out = (frame[column] == name).to_numpy()
            if column == "source" or not out.all():
                yield Split(column, str(name), np.flatnonzero(~out), np.flatnonzero(out))


def left_out(frame: pd.DataFrame, config: Config, tables: Tables | None, known: Model | None = None) -> pd.DataFrame:
    """Predictions of every split's left-out points: the rows of ``frame`` with kind, left_out and predicted.

    ``tables``: kernel tables, of which a left-out model or machine loses its own; without, those of ``known``.
    """
    parts = []
    kernels: dict[tuple[int, ...], Kernels] = {}
    for split in splits(frame):
        train, test = frame.iloc[split.train].reset_index(drop=True), frame.iloc[split.test].reset_index(drop=True)
        rest = tables and _without(tables, split, config)
        key = tuple(len(t) for t in (rest.moe, rest.gemm, rest.decode, rest.prefill, rest.reduces)) if rest else ()
        kernel, reduces = kernels[key] = kernels.get(key) or kernels_of(config, rest, known)
        model = fit(points.read(train, config), kernel, reduces) if len(train) else prior(kernel, reduces)
        made = model.predict(points.read(test, config))
        parts.append(test.assign(kind=split.kind, left_out=split.left_out, predicted=made))
    return pd.concat(parts, ignore_index=True)


Kernels = tuple[dict[str, float], dict[str, cal.AllReduce]]
"""Constants of kernels, and all-reduces by machine."""


def _without(tables: Tables, split: Split, config: Config) -> Tables:
    """Kernel tables without those of what a split leaves out."""
    if split.kind == "machine":
        return tables.without(machine=split.left_out)
    if split.kind == "model" and (found := points.model(split.left_out, config)) and (block := found[1].experts):
        return tables.without(shape=(found[1].hidden_size, block.ffn_size, block.count))
    return tables


def kernels_of(config: Config, tables: Tables | None, known: Model | None = None) -> Kernels:
    """Constants from the kernel tables; without any, those of ``known``.  Raises UserError without either."""
    if tables is None:
        if known is None:
            raise UserError("--fit: no kernel tables and no machine with constants; give --kernels FOLDER")
        return {n: known.constants[n] for n in KERNEL}, known.reduces
    names = pd.unique(pd.concat([t["machine"] for t in (tables.moe, tables.gemm, tables.reduces)]))
    machines = {str(n): points.machine(str(n), config) for n in names}
    sheets = {n: m for n, m in machines.items() if m is not None}
    reduces = {}
    for name, hardware in sheets.items():
        rows = tables.reduces[tables.reduces["machine"] == name]
        if len(rows):
            reduces[hardware.name] = cells.all_reduce_of(reduce_table(rows, "kernel tables"), hardware)
    return kernel_constants(tables, sheets), reduces


def fit_all(frame: pd.DataFrame, config: Config, tables: Tables | None, known: Model | None = None) -> Model:
    """Kernel constants, then serving constants."""
    return fit(points.read(frame, config), *kernels_of(config, tables, known))


def errors(measured: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """Median and 90th percentile of |predicted / measured - 1|; bias: the median of predicted / measured, minus 1."""
    ratio = np.asarray(predicted, float) / np.asarray(measured, float)
    ratio = ratio[np.isfinite(ratio)]
    off = np.abs(ratio - 1.0)
    return {
        "points": len(ratio),
        "median": float(np.median(off)),
        "p90": float(np.quantile(off, 0.9)),
        "bias": float(np.median(ratio)) - 1.0,
    }


INSIDE = 0.8
"""Share of points that an interval is to hold."""


def factors(found: pd.DataFrame) -> dict[str, dict[str, tuple[float, float]]]:
    """Intervals of measured over predicted of left-out points, by metric and kind of split (:func:`interval`)."""
    made: dict[str, dict[str, tuple[float, float]]] = {}
    for (name, kind), rows in found.groupby([found["metric"].map(base_metric), "kind"]):
        low, high, _ = interval(rows)
        made.setdefault(str(name), {})[str(kind)] = (round(low, 3), round(high, 3))
    return made


def interval(rows: pd.DataFrame) -> tuple[float, float, float]:
    """Low and high of measured over predicted, and the share of points inside.

    10th and 90th percentile, widened (in logarithms, alike at both ends) until 80% of the points of each model, machine
    or source lie, in the mean, in the interval that the *other* ones give: a few models say little of the next.  Of
    halves at random, and of an only source, two halves of the configurations take the place of models.  The share is
    that of this check.
    """
    ratio = np.log((rows["value"] / rows["predicted"]).to_numpy(float))
    groups = rows["left_out"].to_numpy(object)
    if rows["kind"].iloc[0] == "seen" or len(set(groups)) == 1:
        groups = rows.groupby([c for c in CONFIGURATION if c in rows], dropna=False).ngroup().to_numpy() % 2
    groups, ratio = groups[np.isfinite(ratio)], ratio[np.isfinite(ratio)]

    def ends(some: Floats) -> Floats:
        return np.asarray(np.clip(np.quantile(some, [0.1, 0.9]), [-np.inf, 0.0], [0.0, np.inf]))

    others = {g: ends(ratio[groups != g]) for g in set(groups)} if len(set(groups)) > 1 else {}
    bounds = np.array([others.get(g, ends(ratio)) for g in groups])
    wider, inside = 0.0, 0.0
    for wider in np.arange(0.0, 1.0, 0.005):
        inside = float(np.mean((ratio >= bounds[:, 0] - wider) & (ratio <= bounds[:, 1] + wider)))
        if inside >= INSIDE:
            break
    low, high = np.exp(ends(ratio) + np.array([-wider, wider]))
    return float(low), float(high), inside


def base_metric(name: str) -> str:
    """ttft, tpot, e2e or throughput; the metric's own name if it is none of these."""
    known = points.metric(name, "serving", "ms")
    return known.name if known else name
