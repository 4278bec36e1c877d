"""A process that ends with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """End this process and all engine processes with the driver: none may outlive the job that holds its lock.

    The kernel kills this process. vLLM's own processes (TP > 1) do not notice, so a child waits for the end of this
    process and then kills the whole process group.
    """
    if sys.platform != "linux":
        return
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent was gone before the prctl call
        sys.exit(1)
    me = os.getpid()
    if os.fork():
        return
    os.closerange(0, 256)  # the pipes to the driver are not this child's
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})
    prctl(PR_SET_PDEATHSIG, signal.SIGRTMIN)
    if os.getppid() == me:
        signal.sigwait({signal.SIGRTMIN})
    os.killpg(0, signal.SIGKILL)
