"""Measured cells of the project's own tables as points, for ``moebench predict`` and ``calibrate --fit``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from moebench.cost import points
from moebench.errors import UserError
from moebench.tables import parquet

METRICS = {"ttft_max_s": "ttft_static", "itl_s": "tpot_static"}
"""Columns of the table ``measurements`` and the corresponding columns of points."""


def load(path: Path) -> pd.DataFrame:
    """Points of a CSV file, or of a folder of tables (``results/tables/STUDY``).

    Tables give the ok cells of vLLM that the calibrated model covers: fused experts in CUDA graphs, no pruning, no
    identical prompts, 16 bits.  Raises UserError if there is none.
    """
    if not path.is_dir():
        return points.load(path)
    cells = parquet.read(path, "measurements")
    known = (
        (cells["status"] == "ok")
        & (cells["engine_name"] == "vllm")
        & (cells["expert_kernel"] == "fused")
        & ~cells["eager"].fillna(False).astype(bool)
        & (cells["pruning"] == "none")
        & (cells["prompts"] != "identical")
        & (cells["protocol_kind"] != "load")
        & (cells["dtype"] != "float32")
    )
    kept = cells[known]
    if kept.empty:
        raise UserError(f"{path}: none of {len(cells)} cells is one that the model knows (docs/cost-model.md)")
    frame = pd.DataFrame(
        {
            "source": kept["study"], "machine": kept["hardware"], "engine": kept["engine_name"],
            "model": kept["model"],
            "precision": kept["quantization"].where(kept["quantization"] != "none", kept["dtype"]),
            "kv_precision": kept["kv_cache_dtype"],
            "tp": kept["tp"], "pp": kept["pp"], "dp": kept["dp"],
            "ep": (kept["tp"] * kept["dp"]).where(kept["ep"].fillna(False).astype(bool), 1),
            "batch": kept["batch"], "input": kept["input_tokens"], "output": kept["output_tokens"],
            "top_k": kept["top_k"], "experts": kept["experts"], "expert_ffn": kept["moe_ffn_size"],
            "images": kept["images"], "image_size": kept["image_size"],
            "draft_model": kept["draft_model"], "draft_tokens": kept["draft_tokens"],
            "acceptance": kept["draft_acceptance"],
            **{metric: kept[name] for name, metric in METRICS.items()},
        }
    )  # fmt: skip
    keys = [name for name in frame if name not in METRICS.values()]
    frame = frame.melt(keys, list(METRICS.values()), "metric", "value").dropna(subset="value")
    return frame.assign(unit="s", value=frame["value"].astype(float)).drop_duplicates().reset_index(drop=True)
