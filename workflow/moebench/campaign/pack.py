"""One archive with all that a bare machine needs to measure some studies: package, plans, model files, ``run.sh``."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import moebench
from moebench.campaign import carried_engine, model_files, order
from moebench.campaign.run import CAMPAIGN, SCHEMA
from moebench.claims import budget
from moebench.errors import StageError, UserError
from moebench.formats.model import ModelDict
from moebench.formats.plan import Cell, EngineConfig, Plan
from moebench.measure import provenance
from moebench.prompts import corpora
from moebench.storage.atomic import canonical_bytes, stamp, write_atomic

MODELS = "models"
"""Folder of the models in a campaign; its plans name them by it."""

_KINDS = ("vllm", "transformers")
"""Engines that run without a server."""

RUN = f"""#!/bin/sh
# Measure on this machine: sh run.sh --minutes 9
# Called again, it continues where it stopped. PYTHON=... selects another Python than python3
# (3.11 or newer, with torch).
cd "$(dirname "$0")" || exit 2
python=${{PYTHON:-python3}}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
    echo "campaign: $python is not Python 3.11 or newer; select one that has torch: PYTHON=... sh run.sh ..." >&2
    exit 2
fi
export PYTHONPATH="$PWD/workflow:$PWD/{carried_engine.SITE}${{PYTHONPATH:+:$PYTHONPATH}}" PYTHONSAFEPATH=1
export VLLM_CACHE_ROOT="$PWD/cache/vllm" TRITON_CACHE_DIR="$PWD/cache/triton"
export TORCHINDUCTOR_CACHE_DIR="$PWD/cache/inductor"
exec "$python" -m moebench.campaign.run "$@"
"""


@dataclass(frozen=True)
class Packed:
    """Contents of an archive."""

    path: Path
    cells: dict[str, int]
    """By study."""
    left_out: dict[str, str]
    """Models that do not travel, and why."""
    stand_ins: list[str]
    """Models that are not staged here."""

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.path.stat().st_size / 2**20:.1f} MiB"]
        lines += [f"study {study}: {count} cells" for study, count in self.cells.items()]
        lines += [f"left out: {name}: {why}" for name, why in self.left_out.items()]
        if self.stand_ins:
            lines.append(
                f"{len(self.stand_ins)} models are not staged here: they use the registry's config.json and whole "
                "words as tokens (every record says so)"
            )
        lines.append(f"on that machine: python3 -m tarfile -e {self.path.name} && sh campaign/run.sh --minutes 9")
        return "\n".join(lines)


def portable(plan: Plan, gpus: int) -> set[str]:
    """The cells of a plan that a machine with this many devices can measure with the engine alone.

    Left out are services, what needs several nodes or a corpus from a file, derived checkpoints, and what is predicted
    not to fit.
    """
    return {key for key, cell in plan["cells"].items() if _travels(plan, plan["engines"][cell["engine"]], cell, gpus)}


def _travels(plan: Plan, engine: EngineConfig, cell: Cell, gpus: int) -> bool:
    work = cell["workload"]
    return (
        engine["runtime"]["kind"] in _KINDS
        and engine["gpus"] <= gpus
        and not any(model["derived"] for model in _models(engine))
        and (work["corpus"] == corpora.PROSE or work["prompts"] == "random")
        and budget.fits(plan, {"engine": cell["engine"], "cell": cell["cell"]})
    )


def _models(engine: EngineConfig) -> Iterator[ModelDict]:
    yield engine["model"]
    if engine["draft"]:
        yield engine["draft"]


def pack(
    out: Path,
    make_plan: Callable[[str, Callable[[Plan], set[str]]], Plan],
    studies: Sequence[str],
    staged_models: Path,
    gpus: int = 1,
    engine: Path | None = None,
) -> Packed:
    """Write the archive ``out`` (``.tar.gz``) of some studies.

    ``make_plan(study, choose)`` plans a study with the cells that ``choose`` gives, its models in ``MODELS``;
    ``staged_models``: where they are staged here; ``engine``: folder with the archives of an engine to carry.
    Raises StageError for models that are not staged, UserError if nothing can travel, StorageError.
    """
    left_out: dict[str, str] = {}
    stand_ins: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "campaign"
        files = _Files(root, staged_models, left_out, stand_ins)
        listed, counts = [], {}
        for study in studies:
            plan = make_plan(study, lambda plan: files.available(plan, portable(plan, gpus)))
            if not plan["cells"]:
                raise UserError(f"study {study}: none of its cells can run on a machine with {gpus} device(s)"
                                + "".join(f"; {name}: {why}" for name, why in left_out.items()))  # fmt: skip
            data = canonical_bytes(plan) + b"\n"
            (root / "plans").mkdir(parents=True, exist_ok=True)
            (root / "plans" / f"{study}.json").write_bytes(data)
            listed.append(
                {
                    "study": study,
                    "plan": f"plans/{study}.json",
                    "plan_sha256": hashlib.sha256(data).hexdigest(),
                    "digest": plan["digest"],
                    "sessions": order.sessions(plan),
                }
            )
            counts[study] = len(plan["cells"])
        about = {"schema": SCHEMA, "packed_at": stamp(), "moebench": moebench.__version__, **provenance.code_revision()}
        about |= {"gpus": gpus, "stand_ins": stand_ins, "studies": listed}
        (root / CAMPAIGN).write_bytes(canonical_bytes(about) + b"\n")
        _add_code(root)
        if engine is not None:
            _add_engine(engine, root)
        _write(root, out)
    return Packed(out, counts, left_out, stand_ins)


class _Files:
    """The model files of a campaign being packed."""

    def __init__(self, root: Path, source: Path, left_out: dict[str, str], stand_ins: list[str]):
        self.root, self.source, self.left_out, self.stand_ins = root, source, left_out, stand_ins
        self.there: dict[str, bool] = {}

    def available(self, plan: Plan, keys: set[str]) -> set[str]:
        """The cells whose models can travel; puts the files of these models in place."""
        engines = {plan["cells"][key]["engine"] for key in keys}
        good = {e for e in engines if all(self.put(model, plan) for model in _models(plan["engines"][e]))}
        return {key for key in keys if plan["cells"][key]["engine"] in good}

    def put(self, model: ModelDict, plan: Plan) -> bool:
        """Whether a model can travel; its files are then in place."""
        path = model["path"]
        if path not in self.there:
            source = self.source / Path(path).relative_to(MODELS)
            try:
                if model_files.put(model, source, self.root / path, plan):
                    self.stand_ins.append(path)
                self.there[path] = True
            except StageError as error:
                if model["weights"] != "dummy":
                    raise
                self.left_out[model["name"]], self.there[path] = str(error), False
        return self.there[path]


def _add_code(root: Path) -> None:
    package = Path(moebench.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(package, root / "workflow" / "moebench", ignore=ignored)
    (root / "run.sh").write_text(RUN)


def _add_engine(engine: Path, root: Path) -> None:
    found = sorted(engine.glob("*.tar.xz"))
    if not found:
        raise UserError(
            f"--engine {engine}: no *.tar.xz there; `python -m moebench.campaign.engine_archives` makes them"
        )
    (root / carried_engine.ARCHIVES).mkdir()
    for path in found:
        shutil.copyfile(path, root / carried_engine.ARCHIVES / path.name)


def _write(root: Path, out: Path) -> None:
    """The archive of a folder: the same bytes for the same contents."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
        entry.mode = 0o755 if entry.isdir() or entry.name.endswith(".sh") else 0o644
        return entry

    made = io.BytesIO()
    with gzip.GzipFile(fileobj=made, mode="wb", mtime=0) as file, tarfile.open(fileobj=file, mode="w") as packed:
        for path in [root, *sorted(root.rglob("*"))]:
            packed.add(path, path.relative_to(root.parent), recursive=False, filter=plain)
    write_atomic(out, made.getvalue())
