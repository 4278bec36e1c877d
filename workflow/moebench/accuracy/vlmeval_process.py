"""VLMEvalKit in a separate process, in its own environment:  python -m moebench.accuracy.vlmeval_process

Reads requests as JSON lines, forks for each (the slow imports happen once, and a run leaves no state behind), and
answers with the exit code.  A run is the harness's own command line; its output is collected in one file for
``vlmeval_results``.  With ``--dump NAME FOLDER`` it writes a data set's images instead, for staging.

Imports only the standard library, VLMEvalKit and its dependencies.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import json
import os
import signal
import sys
import traceback
from pathlib import Path

from moebench.formats import Json

MODEL = "model"
"""What the server calls the model; part of the harness's file names."""
FOUND = "found.json"
"""What a run leaves in its work folder."""
ENVIRONMENT = "vlmeval"
"""Environment of envs/ with VLMEvalKit."""
_SCORED = {"mme": "auxmatch", "choices": "exact_matching_result", "vqa": "results", "anls": "results"}
_TABLES = {"mme": "score", "choices": "acc", "vqa": "acc", "anls": "acc"}


def harness_python(python: str) -> Path:
    """The interpreter with VLMEvalKit, in the environment beside the one of ``python`` (``.envs/NAME/bin/python``)."""
    return Path(python).absolute().parents[2] / ENVIRONMENT / "bin" / "python"


def main() -> None:
    """Answer requests until standard input ends."""
    if sys.argv[1:2] == ["--dump"]:
        dump(*sys.argv[2:4])
        return
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    end_with_parent()
    import vlmeval.run  # noqa: F401 - for the children

    replies.write(json.dumps({"version": importlib.metadata.version("ms-vlmeval"), "md5": tables()}) + "\n")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                end_with_parent()
                run(json.loads(line))
                code = 0
            except BaseException:  # the child must never continue the loop
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        replies.write(json.dumps({"exit": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}) + "\n")


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def tables() -> dict[str, str]:
    """The MD5 that the harness expects of each table, by data set."""
    import vlmeval.dataset

    known: dict[str, str] = {}
    for kind in vlmeval.dataset.DATASET_CLASSES:
        md5s = getattr(kind, "DATASET_MD5", None)
        if isinstance(md5s, dict):
            known |= {name: md5 for name, md5 in md5s.items() if isinstance(md5, str)}
    return known


def accept(name: str, table: Path) -> None:
    """Make the harness accept a table that is not the published one (fixtures): its MD5 becomes the expected one."""
    import vlmeval.dataset

    found = hashlib.md5(table.read_bytes(), usedforsecurity=False).hexdigest()
    for kind in vlmeval.dataset.DATASET_CLASSES:
        md5s = getattr(kind, "DATASET_MD5", None)
        if isinstance(md5s, dict) and name in md5s:
            md5s[name] = found


def run(request: Json) -> None:
    """Run one data set with the harness's command line, in a new folder."""
    from vlmeval.run import main as vlmeval

    task, work = request["task"], Path(request["work"])
    name, folder = task["task"], Path(task["data"]["path"])
    os.environ["LMUData"] = str(folder)  # noqa: SIM112 - its name
    os.environ["PRED_FORMAT"] = "tsv"  # in a spreadsheet an answer that begins with = is a formula
    os.environ["LMDEPLOY_API_KEY"] = request["key"]  # not an argument, because the harness logs those
    if task["data"]["source"] == "fixtures":
        accept(name, folder / f"{name}.tsv")
    sys.argv = ["vlmeval", "--data", name, "--model", MODEL, "--base-url", request["url"]]
    sys.argv += ["--judge", task["judge"], "--work-dir", str(work), "--temperature", "0"]
    sys.argv += ["--max-tokens", str(task["max_tokens"]), "--api-nproc", str(request["parallel"]), "--retry", "2"]
    sys.argv += ["--extra-body", json.dumps({"wait": 1})]  # s, mean wait between tries
    sys.argv += ["--timeout", str(request["timeout_s"])]
    sys.argv += ["--limit", str(request["limit"])] if request["limit"] else []
    os.chdir(work)
    vlmeval()
    (work / FOUND).write_text(json.dumps(gather(task, work, folder), default=str))


def gather(task: Json, work: Path, folder: Path) -> Json:
    """The output of a run: ``status`` of the data set, ``asked`` rows, ``predictions``, ``scored`` rows and the
    ``table``.

    A missing part is None; ``vlmeval_results`` decides whether that is an error.
    """
    stem, name = work / MODEL / f"{MODEL}_{task['task']}", task["task"]
    status = json.loads((work / MODEL / "status.json").read_text())["datasets"].get(name, {})
    return {
        "status": status,
        "asked": _rows(folder / f"{name}.tsv", keep=("index",), image=True),
        "predictions": _rows(Path(f"{stem}.tsv")),
        "scored": _rows(Path(f"{stem}_{_SCORED[task['scoring']]}.tsv")),
        "table": _rows(Path(f"{stem}_{_TABLES[task['scoring']]}.csv")),
    }


def _rows(path: Path, keep: tuple[str, ...] = (), image: bool = False) -> list[Json] | None:
    """A table's rows, empty cells as None; with ``image``, only the rows with an image, as the harness does."""
    import pandas as pd

    if not path.exists():
        return None
    frame = pd.read_csv(path, sep="," if path.suffix == ".csv" else "\t")
    if image and "image" in frame:
        frame = frame[frame["image"].notna()]
    if keep:
        frame = frame[list(keep)]
    rows: list[Json] = json.loads(frame.to_json(orient="records"))
    return rows


def dump(name: str, folder: str) -> None:
    """Write a data set's images where the harness will look for them; existing ones are kept."""
    os.environ["LMUData"] = folder  # noqa: SIM112 - its name
    from vlmeval.dataset import build_dataset

    data = build_dataset(name)
    if data is None:
        sys.exit(f"VLMEvalKit has no data set {name!r}")
    for number in range(len(data)):
        data.dump_image(data.data.iloc[number])
        if (number + 1) % 1000 == 0 or number + 1 == len(data):
            print(f"{name}: images of {number + 1} of {len(data)} rows", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
