"""The command as a process: colours on a terminal, completion in a shell, plans that no process makes otherwise."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import pytest

import studies
from moebench import __version__
from moebench.commands import cli
from moebench.commands.planning import make_plan
from moebench.config import Config
from studies import ROOT


def moebench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it, in the project's folder, its output into a pipe."""
    unset = {"COLUMNS", "NO_COLOR", "FORCE_COLOR", "GITHUB_ACTIONS"}
    env = {key: value for key, value in os.environ.items() if key not in unset}
    return subprocess.run(
        [sys.executable, "-m", "moebench", *arguments],
        capture_output=True, text=True, cwd=ROOT, env=env | {"PYTHONPATH": str(ROOT / "workflow")} | environment,
    )  # fmt: skip


def test_version():
    done = moebench("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")


def terminal(*arguments: str, **environment: str) -> str:
    """What a verb writes on a terminal."""
    process, master = pty.fork()  # a new process takes half a second to import what is imported here
    if process == 0:
        sys.stdout = sys.stderr = os.fdopen(1, "w")
        os.environ.pop("NO_COLOR", None)
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": "80"} | environment
        _end(arguments)
    return _read_all(process, master)


def _end(arguments: Sequence[str]) -> NoReturn:
    """Run a verb and end this process, which is a copy of that of the tests, without its clean-up."""
    code = 99
    try:
        cli.main(list(arguments))
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _read_all(process: int, file: int) -> str:
    """What a process writes; it must end with 0."""
    parts = []
    with contextlib.suppress(OSError):  # Linux, at the end of a terminal
        while part := os.read(file, 65536):
            parts.append(part)
    os.close(file)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, parts
    return b"".join(parts).decode()


@pytest.mark.parametrize("arguments", [["--help"], ["qs", "--help"], ["columns"]])
def test_colours_only_on_a_terminal_and_not_with_no_color(arguments):
    assert "\x1b[" in terminal(*arguments)
    assert "\x1b" not in terminal(*arguments, NO_COLOR="1")
    assert "\x1b" not in moebench(*arguments, GITHUB_ACTIONS="true").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_printed(shell):
    done = moebench("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0 and "_MOEBENCH_COMPLETE" in done.stdout and done.stderr == ""


def test_a_shell_installs_completion_for_itself(tmp_path):
    """As the user types it: typer asks which shell runs the command."""
    command = f"{sys.executable} -m moebench --install-completion; true"
    env = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "workflow")}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, env=env)
    assert "bash completion installed" in done.stdout, done.stderr
    assert "_moebench_completion" in (tmp_path / ".bash_completions/moebench.sh").read_text()


def test_plans_are_equal_in_every_process(tmp_path):
    block = {"fix": {"model": "tiny-mixtral"}, "cross": {"top_k": [1, 2, 4], "batch": [1, 2]}}
    config = studies.folder(tmp_path, {"x": [block]})
    here = make_plan(Config(config), "test")
    there = moebench("plan", "--json", "--config", str(config), PYTHONHASHSEED="1234")  # here it is drawn
    assert json.loads(there.stdout) == json.loads(json.dumps(here))
