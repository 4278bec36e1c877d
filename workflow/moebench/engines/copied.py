"""A fork of this process, for ``engines.server``: what was imported here need not be imported again.

Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import NoReturn

_POLL_S = 0.02


class Copy:
    """A fork that runs ``run`` in a session of its own; used like ``subprocess.Popen``.

    Args:
        run: what it runs; with its end, or an exception, the process ends.
        output: file descriptor of its output.
        environment: all its variables.

    It inherits open files: closing one that an object inherited with it still names would harm whoever opens the next.
    """

    def __init__(self, run: Callable[[], None], output: int, environment: Mapping[str, str]):
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _run(run, output, environment)

    def poll(self) -> int | None:
        """Its exit code, negative for signals; None while it runs."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.  ``timeout`` in s; raises subprocess.TimeoutExpired."""
        started = time.monotonic()
        while (code := self.poll()) is None:
            if timeout is not None and time.monotonic() - started > timeout:
                raise subprocess.TimeoutExpired("a copy of this process", timeout)
            time.sleep(_POLL_S)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _run(run: Callable[[], None], output: int, environment: Mapping[str, str]) -> NoReturn:
    code = 1
    try:
        os.setsid()
        for here, there in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
            os.dup2(here, there)
        os.environ.clear()
        os.environ.update(environment)
        run()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):  # a full disk
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
