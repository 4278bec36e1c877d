"""A checkpoint in safetensors files, read and rewritten one file at a time.  Memory: one file, as it is written.

Experts are found by name, as the families' published checkpoints store them: ``...mlp.experts.N.gate_proj.weight``
(also ``up_proj``, ``down_proj``), or ``...block_sparse_moe.experts.N.w1.weight`` (gate; ``w3`` up, ``w2`` down).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moebench.errors import StageError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

_ROLES = {"gate_proj": "gate", "up_proj": "up", "down_proj": "down", "w1": "gate", "w3": "up", "w2": "down"}
_EXPERT = re.compile(
    rf"(?P<head>.*\blayers\.(?P<layer>\d+)\.\w+\.experts)\.(?P<expert>\d+)\.(?P<matrix>{'|'.join(_ROLES)})\.weight"
)
_ROUTER = re.compile(r".*\blayers\.(?P<layer>\d+)\.(mlp|block_sparse_moe)\.(gate|router)\.\w+")


@dataclass(frozen=True)
class ExpertName:
    """The name of a routed expert's matrix; ``role`` is gate, up (both [width, hidden]) or down ([hidden, width])."""

    head: str
    layer: int
    expert: int
    matrix: str

    @property
    def role(self) -> str:
        return _ROLES[self.matrix]

    def numbered(self, expert: int) -> str:
        """The same matrix of another expert."""
        return f"{self.head}.{expert}.{self.matrix}.weight"


def expert_name(name: str) -> ExpertName | None:
    """A tensor's name, parsed, if it is a routed expert's."""
    match = _EXPERT.fullmatch(name)
    if match is None:
        return None
    return ExpertName(match["head"], int(match["layer"]), int(match["expert"]), match["matrix"])


def router_layer(name: str) -> int | None:
    """The layer of a tensor that has a row per expert (the router's weight or bias), else None."""
    match = _ROUTER.fullmatch(name)
    return int(match["layer"]) if match else None


class Checkpoint:
    """A folder with ``config.json`` and safetensors files.  Raises StageError if it has no such files."""

    def __init__(self, folder: Path):
        from safetensors import safe_open

        self.folder = folder
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        index = folder / INDEX
        files = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else [SINGLE]
        self.files: dict[str, list[str]] = {}
        """Tensor names by file."""
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file in files:
            if not (folder / file).exists():
                raise StageError(f"{folder / file}: missing; only safetensors checkpoints can be pruned")
            with safe_open(folder / file, "pt") as opened:
                self.files[file] = list(opened.keys())
                self.shapes |= {name: tuple(opened.get_slice(name).get_shape()) for name in self.files[file]}

    def tensors(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Any]]:
        """Tensors whose names are wanted, file by file.  They are views: copy what must outlive the next file."""
        from safetensors import safe_open

        for file, names in self.files.items():
            chosen = [name for name in names if wanted(name)]
            if chosen:
                with safe_open(self.folder / file, "pt") as opened:
                    for name in chosen:
                        yield name, opened.get_tensor(name)

    def moe_layers(self, experts: int, width: int, hidden: int) -> list[int]:
        """Layers with routed experts.

        Raises StageError unless each has ``experts`` of them with three matrices each of [width, hidden] or its
        transpose, and a router of as many rows.
        """
        found: dict[int, set[tuple[int, str]]] = {}
        for name, shape in self.shapes.items():
            expert = expert_name(name)
            layer = router_layer(name)
            if expert is None and ".experts." in name:
                raise StageError(
                    f"{self.folder}: {name} is not a separate matrix of an expert; such experts are not pruned"
                )
            if expert is not None:
                found.setdefault(expert.layer, set()).add((expert.expert, expert.role))
                expected: tuple[int, ...] = (hidden, width) if expert.role == "down" else (width, hidden)
                if shape != expected:
                    raise StageError(
                        f"{self.folder}: {name} is {shape}, not {expected}; is it quantized? Prune before quantizing"
                    )
            if layer is not None and shape[0] != experts:
                raise StageError(f"{self.folder}: {name} has {shape[0]} rows for {experts} experts")
        for layer, parts in found.items():
            if len(parts) != 3 * experts:
                raise StageError(f"{self.folder}: layer {layer} has {len(parts)} matrices for {experts} gated experts")
        return sorted(found)

    def rewrite(self, out: Path, change: Callable[[str, Any], tuple[str, Any] | None]) -> int:
        """Write every tensor to ``out`` in files of the same names, as ``change`` gives it (None: left out).

        Returns the bytes of all tensors.
        """
        from safetensors.torch import save_file

        where: dict[str, str] = {}
        total = 0
        for file, names in self.files.items():
            of_file = set(names)
            kept = dict(filter(None, (change(name, tensor) for name, tensor in self.tensors(of_file.__contains__))))
            if not kept:
                continue
            save_file(kept, out / file, metadata={"format": "pt"})
            where |= dict.fromkeys(kept, file)
            total += sum(tensor.nbytes for tensor in kept.values())
            del kept
        if (self.folder / INDEX).exists():
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
            (out / INDEX).write_text(json.dumps(index, indent=2) + "\n")
        return total


def copy_rest(files: Iterable[str], source: Path, out: Path) -> None:
    """Copy files that are neither weights, nor their index, nor the configuration: the tokenizer's, and texts."""
    weights = (".safetensors", ".safetensors.index.json", ".bin", ".pth", ".pt", ".gguf")
    for name in files:
        if name in ("config.json", "prune.json") or name.endswith(weights):
            continue
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes((source / name).read_bytes())
