"""SLURM's commands as scripts that print what a test says.  A job's command is not run: its output file is made.

    slurm = ScriptedSlurm(folder)
    slurm.script(refuse=["..."], banner="...", states={"a": ["CANCELLED by 0", "COMPLETED"]})

``folder/bin`` goes to PATH; ``answer`` says the same without a process.  A job is known by the last word of its
comment (the wildcard of its rule), and each submission of it takes the next of its states (``COMPLETED`` where there
are no more).  Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

COMMANDS = ("sbatch", "sacct", "squeue", "scontrol", "sinfo", "sacctmgr", "sshare", "scancel")


class ScriptedSlurm:
    """A folder with the commands, what they shall say, and what they were asked."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        for name in COMMANDS:
            program = folder / "bin" / name
            program.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {folder} {name} "$@"\n')
            program.chmod(0o755)
        self.script()

    def script(self, **says: Any) -> None:
        """What they say from now on.

        refuse: of sbatch, a refusal per submission.  sacct_down, squeue_down: calls that fail.  banner: around the id.
        queue: states in squeue by job.  nodes: of sacct's node list.  mute: sbatch prints no id.
        """
        (self.folder / "says.json").write_text(json.dumps(says))
        (self.folder / "seen.json").write_text(json.dumps({"jobs": [], "calls": []}))

    def answer(self, name: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
        """What a command's process would say."""
        code, out, err = 0, io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                _run(self.folder, name, arguments)
            except SystemExit as end:
                code = int(end.code or 0)
        return subprocess.CompletedProcess([name, *arguments], code, out.getvalue(), err.getvalue())

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """Accepted submissions."""
        return list(json.loads((self.folder / "seen.json").read_text())["jobs"])

    @property
    def calls(self) -> list[list[str]]:
        """All calls, with their arguments."""
        return list(json.loads((self.folder / "seen.json").read_text())["calls"])


def _fail(words: str) -> None:
    sys.stderr.write(words + "\n")
    sys.exit(1)


def _option(arguments: list[str], name: str) -> str:
    return next((b for a, b in zip(arguments, [*arguments[1:], ""], strict=True) if a == name), "")


def _command(says: dict[str, Any], seen: dict[str, Any], name: str, arguments: list[str]) -> None:
    calls = sum(call[0] == name and ("--name" in call or name == "sbatch") for call in seen["calls"])
    if name == "sbatch":
        refusals = says.get("refuse", [])
        if calls <= len(refusals) and refusals[calls - 1]:
            _fail(refusals[calls - 1])
        comment = _option(arguments, "--comment")
        key = comment.rpartition("_")[2]
        states = says.get("states", {}).get(key, [])
        attempt = sum(job["comment"] == comment for job in seen["jobs"])
        state = states[attempt] if attempt < len(states) else "COMPLETED"
        job = {"id": 1000 + len(seen["jobs"]), "key": key, "comment": comment, "state": state, "arguments": arguments}
        seen["jobs"].append(job)
        if state == "COMPLETED" and _option(arguments, "-D"):
            (Path(_option(arguments, "-D")) / key).touch()
        print(says.get("banner", ""))
        print("" if says.get("mute") else f"{job['id']};cluster1")
    elif name == "sacct" and any("nodelist" in argument for argument in arguments):
        print(says.get("nodes", "node7"))
    elif name == "sacct" and "--name" in arguments:
        if calls <= says.get("sacct_down", 0):
            _fail("sacct: error: slurm_persist_conn_open: Connection refused")
        for job in seen["jobs"]:
            print(f"{job['id']}|{job['state']}")
    elif name == "squeue" and "--name" in arguments:
        if calls <= says.get("squeue_down", 0):
            _fail("slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
        for job in seen["jobs"]:
            if any("%k" in argument for argument in arguments):
                print(f"{job['id']}|{job['comment']}")
            elif job["key"] in says.get("queue", {}):
                print(f"{job['id']}|{says['queue'][job['key']]}")
    elif name == "squeue":
        print("\n".join(says.get("queued", [])))
    elif name == "scontrol":
        print("MinJobAge = 300 sec\nMaxArraySize = 1001")
    elif name == "sinfo":
        print("PARTITION\nh100*")
    elif name in ("sacctmgr", "sshare"):
        _fail(f"{name}: error: Unable to contact slurm database")


def _run(folder: Path, name: str, arguments: list[str]) -> None:
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        seen_file = folder / "seen.json"
        seen = json.loads(seen_file.read_text())
        seen["calls"].append([name, *arguments])
        try:
            _command(json.loads((folder / "says.json").read_text()), seen, name, arguments)
        finally:
            seen_file.write_text(json.dumps(seen))


if __name__ == "__main__":
    _run(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
