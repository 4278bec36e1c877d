"""A server on this machine is asked directly, whatever proxy a site's shell names: every child process has both
spellings of the variable that says so."""

from __future__ import annotations

import ast
import os
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from unittest import mock
from urllib.error import URLError

import pytest

import studies
from moebench.accuracy import vlmeval_harness
from moebench.accuracy.driver import Evaluator
from moebench.commands import cli
from moebench.engines import loopback
from moebench.engines.server import Server
from moebench.measure.driver import Driver


def ask(address, environment):
    """What a process with these variables is answered."""
    with mock.patch.dict(os.environ, environment, clear=True):
        return urllib.request.build_opener().open(address, timeout=20).read()


@pytest.mark.parametrize(
    ("shell", "value"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"no_proxy": "site.example"}, "site.example,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "a.example, b.example", "no_proxy": "c.example"},
         "c.example,a.example,b.example,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "127.0.0.1"}, "127.0.0.1,localhost,::1"),
        ({"no_proxy": "*"}, "*"),
    ],
)  # fmt: skip
def test_both_spellings_list_what_either_did_and_this_machine(shell, value):
    assert loopback.direct(shell) == {"no_proxy": value, "NO_PROXY": value}


class Hello(BaseHTTPRequestHandler):
    """Says hello."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *arguments):
        """Nothing."""


@pytest.fixture
def address():
    server = HTTPServer(("127.0.0.1", 0), Hello)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def of_the_driver(tmp_path, monkeypatch):
    plan = studies.planned("tiny")
    return Driver(plan, tmp_path, tmp_path / "log", print).environment(next(iter(plan["engines"].values())))


def of_the_accuracy_driver(tmp_path, monkeypatch):
    plan = studies.planned("tiny")
    driver = Evaluator(plan, next(iter(plan["accuracy"])), tmp_path, tmp_path / "log", print)
    driver.close()
    return driver.environment(next(iter(plan["engines"].values())))


def of_the_server(tmp_path, monkeypatch):
    return Server(["model"], "name").environment


def of_vlmevalkit(tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(vlmeval_harness.subprocess, "Popen", lambda *a, **k: given.update(k) or SimpleNamespace())
    vlmeval_harness.Harness(tmp_path).log_file.close()
    monkeypatch.undo()
    return given["env"]


def of_a_verb(tmp_path, monkeypatch):
    """What the command leaves to the processes that it starts."""
    with monkeypatch.context() as shell, pytest.raises(SystemExit):
        for name in loopback.NAMES:  # to be put back
            shell.setenv(name, os.environ.get(name, ""))
        try:
            cli.main(["--version"])
        finally:
            left = dict(os.environ)
    return left


@pytest.mark.parametrize("built", [of_the_driver, of_the_accuracy_driver, of_the_server, of_vlmevalkit, of_a_verb])
def test_a_child_process_asks_this_machine_directly(built, address, tmp_path, monkeypatch):
    for name, value in {"http_proxy": "http://127.0.0.1:9", "no_proxy": "site.example"}.items():
        monkeypatch.setenv(name, value)  # lower case, as sites set it: it hides NO_PROXY from requests and urllib
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(URLError):
        ask(address, os.environ)  # of the proxy that nobody answers at
    environment = built(tmp_path, monkeypatch)
    assert ask(address, environment) == b"hello"
    assert "site.example" in environment["no_proxy"] == environment["NO_PROXY"]


INHERITED = {"measure/telemetry/sidecar.py", "measure/process.py", "measure/constants.py", "commands/campaign.py",
             "commands/slurm_commands.py"}  # fmt: skip
"""Modules that hand on the variables of a driver, of a verb, or (SLURM's commands) of the user."""


STARTS = ("subprocess.", "os.exec", "os.spawn")


def test_every_process_started_with_variables_of_its_own_has_them():
    starters = {}
    for path in (studies.ROOT / "workflow" / "moebench").rglob("*.py"):
        text = path.read_text()
        for call in ast.walk(ast.parse(text)) if any(start in text for start in STARTS) else ():
            if isinstance(call, ast.Call) and ast.unparse(call.func).startswith(STARTS):
                own = any(k.arg == "env" for k in call.keywords) or ast.unparse(call.func).endswith("e")
                starters.setdefault(str(path.relative_to(studies.ROOT / "workflow" / "moebench")), []).append(own)
    assert len(starters) > 10, "the search finds them"
    own = {name for name, found in starters.items() if any(found)}
    assert own - INHERITED == {"engines/server.py", "accuracy/vlmeval_harness.py"}
    for name in own - INHERITED:
        assert "loopback import direct" in (studies.ROOT / "workflow" / "moebench" / name).read_text()
