"""Lock files of holders made up for tests of ``moebench.storage.lock``."""

import json
import os
import subprocess
import time

from moebench.storage import lock


def said_nothing(text):
    raise AssertionError(f"waited: {text}")


def write(path, age_s=0.0, **changes):
    """A lock file of a holder like this process but for the changes, with a heartbeat so long ago."""
    path.write_text(json.dumps(lock._me() | changes))
    then = time.time() - age_s
    os.utime(path, (then, then))


def dead_pid():
    done = subprocess.Popen(["true"])
    done.wait()
    return done.pid
