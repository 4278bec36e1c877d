"""Scripts in the engine's environment, each in a copy of one process that has imported vLLM (8 s of CPU time).

``EngineCopies`` starts that process; the rest of this file runs in it.  A copy (fork) is as good as a new process where
there is one thread, see engines/vllm_startup.py.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT / "workflow"), str(Path(__file__).parent)]
VARIABLES = {
    "PYTHONPATH": os.pathsep.join(PATHS),
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
}


class EngineCopies:
    """Runs scripts; the process with vLLM starts with the first of them."""

    def __init__(self, python: Path):
        self.python = python
        self.process: subprocess.Popen[str] | None = None

    def run(
        self, *command: Any, cwd: Path = ROOT, given: str = "", code: int = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``SCRIPT.py ARGUMENTS`` or ``-m MODULE ARGUMENTS`` with ``given`` as its input; fail unless it ends with
        ``code``.
        """
        if self.process is None:
            self.process = subprocess.Popen([self.python, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            text=True, env=os.environ | VARIABLES)  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        words = [str(word) for word in command]
        with tempfile.TemporaryDirectory() as folder:
            streams = [Path(folder, name) for name in ("in", "out", "err")]
            streams[0].write_text(given)
            asked = {"command": words, "cwd": str(cwd), "variables": variables, "streams": [str(s) for s in streams]}
            self.process.stdin.write(json.dumps(asked) + "\n")
            self.process.stdin.flush()
            ended = int(self.process.stdout.readline())
            done = subprocess.CompletedProcess(words, ended, *(s.read_text() for s in streams[1:]))
        assert done.returncode == code, f"{words} gave {ended}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        return done

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.communicate()


def become(asked: dict[str, Any]) -> NoReturn:
    """Run a script as the main program of this process, then end."""
    os.chdir(asked["cwd"])
    os.environ.update(asked["variables"])
    for number, (file, mode) in enumerate(zip(asked["streams"], "rww", strict=True)):
        with open(file, mode) as stream:
            os.dup2(stream.fileno(), number)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    first, *rest = asked["command"]
    code: Any = 0
    try:
        if first == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = [first, *rest]
            runpy.run_path(first, run_name="__main__")
    except SystemExit as end:
        code = end.code or 0
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # what the first process registered for its end is not this one's


def main() -> None:
    """Import vLLM, then run a script for each line of input and print its exit code."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print
    from moebench.engines import imports

    with imports.no_collection():
        from transformers.models.auto import modeling_auto  # noqa: F401
        from vllm import LLM  # noqa: F401
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            become(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=replies, flush=True)


if __name__ == "__main__":
    main()
