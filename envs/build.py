#!/usr/bin/env python3
"""Build the locked virtual environments: ``python3 envs/build.py workflow vllm-cpu``.

Standard library only, so that it runs on a fresh machine with nothing but Python 3.11 (another says so and ends).  Each
environment ``NAME`` is made from ``envs/NAME.lock`` (hashes checked) into ``.envs/NAME`` by uv, which is
itself installed at a pinned version into ``.envs/uv``.  A finished environment carries a stamp with
its lock's SHA-256, so a second call does nothing.

The CPU build of torch is not on PyPI.  Where pip is configured with a ``find-links`` folder or page
(``pip config list``), uv is pointed there too; where that folder has no torch wheel, uv takes it, and nothing
else, from PyTorch's own CPU index (``--torch-backend cpu``).
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

# Before anything that an older Python would not read: the python3 of many clusters is 3.6 or 3.9.
if sys.version_info[:2] != (3, 11):
    sys.exit(
        "envs/build.py: the locks are for Python 3.11, and this is {}.{}; run it with python3.11 (a cluster's may be a "
        "module; for make: PYTHON=python3.11)".format(*sys.version_info)
    )

UV_VERSION = "0.13.9"
ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("MOEBENCH_ENVS", ROOT / ".envs"))


def run(command: list[str], **kwargs) -> None:
    """Run a command; end with its own words and exit code when it fails."""
    result = subprocess.run(command, **kwargs)
    if result.returncode:
        sys.exit(
            f"envs/build.py: `{' '.join(command[:4])} ...` failed with exit code {result.returncode}; "
            "its messages are above"
        )


def find_links() -> list[str]:
    """The find-links locations pip is configured with (uv does not read pip's configuration)."""
    out = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    found = []
    for line in out.splitlines():
        key, _, value = line.partition("=")
        if key.rsplit(".", 1)[-1] == "find-links":
            found += value.strip().strip("'\"").split()
    return list(dict.fromkeys(found))


def uv_command() -> str:
    """Path of the pinned uv, installed on first use."""
    uv = TARGET / "uv" / "bin" / "uv"
    stamp = TARGET / "uv" / f"uv-{UV_VERSION}"
    if not stamp.exists():
        print(f"environment uv: installing uv {UV_VERSION}", flush=True)
        shutil.rmtree(TARGET / "uv", ignore_errors=True)
        run([sys.executable, "-m", "venv", str(TARGET / "uv")])
        run([str(TARGET / "uv" / "bin" / "python"), "-m", "pip", "install", "--quiet", f"uv=={UV_VERSION}"])
        stamp.touch()
    return str(uv)


def install_package(place: Path, locked: str) -> None:
    """Make ``import moebench`` and the ``moebench`` command work in an environment, from this checkout."""
    site = next((place / "lib").glob("python*")) / "site-packages"
    mend = "import moebench.engines.torchvision_cpu\n" if "+cpu" in locked and "\ntorchvision==" in locked else ""
    (site / "moebench.pth").write_text(f"{ROOT / 'workflow'}\n{mend}")
    command = place / "bin" / "moebench"
    # Processes that figures and tables are made in import this file anew: they must not run the command again.
    run_it = 'if __name__ == "__main__":\n    main()\n'
    command.write_text(f"#!{place / 'bin' / 'python'}\nfrom moebench.cli import main\n\n{run_it}")
    command.chmod(0o755)


def was_moved(place: Path) -> bool:
    """Whether the environment was built at another place, which its commands still name."""
    command = place / "bin" / "moebench"
    named = command.read_text().split("\n")[0].removeprefix("#!") if command.exists() else ""
    return Path(named).parent.resolve() != command.parent.resolve()


def build(name: str) -> None:
    """Make ``.envs/NAME`` from ``envs/NAME.lock``, unless its stamp says it is already that."""
    lock = ROOT / "envs" / f"{name}.lock"
    if not lock.exists():
        known = sorted(p.stem for p in (ROOT / "envs").glob("*.lock"))
        sys.exit(f"envs/build.py: there is no environment {name!r}; known: {', '.join(known)}")
    locked = lock.read_text()
    digest = hashlib.sha256(locked.encode()).hexdigest()
    place, stamp = TARGET / name, TARGET / name / ".lock-sha256"
    if stamp.exists() and stamp.read_text().strip() == digest and not was_moved(place):
        # Built before the command had its guard.  Otherwise untouched: another checkout may share the environment.
        if "__main__" not in (place / "bin" / "moebench").read_text():
            install_package(place, locked)
        print(f"environment {name}: up to date", flush=True)
        return
    started = time.monotonic()
    print(f"environment {name}: building {place} (downloads on first use; UV_CACHE_DIR says where to)", flush=True)
    uv, links = uv_command(), find_links()
    shutil.rmtree(place, ignore_errors=True)
    run([uv, "venv", "--quiet", "--python", sys.executable, str(place)])
    common = ["--require-hashes", "--compile-bytecode", "--python", str(place / "bin" / "python")]
    for link in links:
        common += ["--find-links", link]
    if "+cpu" in locked and not any(list(Path(link).glob("torch-*+cpu-*.whl")) for link in links):
        # On its own: that index has other files of torchvision than the locked ones. The sync below finds it installed.
        torch = place / "torch.txt"
        torch.write_text(next(part for part in re.split(r"(?m)^(?=\S)", locked) if part.startswith("torch==")))
        run([uv, "pip", "install", "--no-deps", *common, "--torch-backend", "cpu", "--requirements", str(torch)])
    run([uv, "pip", "sync", *common, str(lock)])
    install_package(place, locked)
    stamp.write_text(digest + "\n")
    print(f"environment {name}: ready in {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python3 envs/build.py NAME [NAME ...]   (names: the .lock files in envs/)")
    for environment in sys.argv[1:]:
        build(environment)
