"""Creates derived checkpoints: on a compute node, in the environment that the plan names, each completely or not at
all."""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from moebench.engines import failures
from moebench.errors import StageError, StorageError, UserError, disk_is_full, nearest
from moebench.formats.model import Derivation, ModelDict
from moebench.formats.plan import Plan
from moebench.storage import staged

MAKERS = {"prune": "moebench.models.prune.make", "quantize": "moebench.models.quantize.make"}
"""Module of each kind of derivation.  Its ``make(model, parent, out, say)`` writes the checkpoint of ``model`` into the
empty folder ``out`` and returns facts for the manifest; it raises UserError for what is not possible."""

Say = Callable[[str], None]


def derive(plan: Plan, name: str, say: Say) -> bool:
    """Create one derived checkpoint of a plan; return False if a complete one exists already.

    Raises UserError: no such model, its parent is incomplete, it cannot be created in this way, or the disk is full.
    """
    if name not in plan["derived"]:
        raise UserError(f"no derived model {name!r} in the plan" + nearest(name, plan["derived"]))
    model = plan["derived"][name]
    derived = derivation(model)
    folder, parent = Path(model["path"]), Path(derived["parent"]["path"])
    if is_made(model):
        return False
    problems = staged.check(parent)
    if problems:
        raise StageError(f"{problems[0]}; {how_to_make(derived['parent'], plan)}")
    os.environ["HF_HUB_OFFLINE"] = "1"  # compute nodes have no internet access
    started = time.perf_counter()
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        facts = importlib.import_module(MAKERS[derived["by"]]).make(model, parent, temporary, say)
        facts |= {"took_s": round(time.perf_counter() - started, 1)}
        staged.write_manifest(temporary, model["source"], model["revision"], facts)
        staged.publish(temporary, folder)
    except Exception as error:  # safetensors raises its own errors when the disk fails
        if not (isinstance(error, OSError) or disk_is_full(error)):
            raise
        why = getattr(error, "strerror", None) or str(error)
        raise StorageError(
            f"{getattr(error, 'filename', None) or folder}: cannot be written ({why}); free space, then run again"
        ) from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return True


def host_fault(error: Exception) -> str | None:
    """What is wrong with this node or its environment, if that is why a checkpoint could not be created."""
    status, reason, _ = failures.classify(f"{type(error).__name__}: {error}", "load")
    return reason if failures.of_host({"status": status, "reason": reason}) else None


def derivation(model: ModelDict) -> Derivation:
    """How a derived model of a plan is created."""
    derived = model.get("derived")
    assert derived is not None
    return derived


def is_made(model: ModelDict) -> bool:
    """Whether a derived model's folder is complete and has its revision."""
    folder = Path(model["path"])
    return not staged.check(folder) and staged.revision_of(folder) == model["revision"]


def how_to_make(model: ModelDict, plan: Plan) -> str:
    """The remedy for an incomplete model."""
    if model.get("derived"):
        return f"delete {model['path']} and run snakemake again: a job creates it"
    return f"run `moebench stage --study {plan['study']}` on a machine with internet"
