# Shared by the rules: the plan, the interpreters of their commands, and the resources of jobs.
import shutil

from snakemake.settings.types import DeploymentMethod

from moebench import columns, progress
from moebench.plan.jobs import environments_needed
from moebench.commands import slurm_commands
from moebench.commands.snakefile import (
    computed_figures,
    engine_python,
    engines_of,
    figure_labels,
    load_plan,
    near,
    one_of,
    part_of,
    planned_job,
    refuse_paths,
    refuse_unbuilt,
    refuse_unpinned,
    roots,
    staged_files,
)

# The plan determines the jobs, so it is built when Snakemake starts and saved under its digest (docs/decisions/0012).
if Path.cwd() != PROJECT:
    config.setdefault(
        "environments", os.environ.get("MOEBENCH_ENVS") or f"{PROJECT}/.envs"
    )
CONFIG_FOLDER = os.path.relpath(PROJECT / "config")
PLAN = load_plan(config, workflow, PROJECT)
STUDY, RESULTS, REPORT = (
    PLAN["study"],
    config["results"],
    f"{config['reports']}/{PLAN['study']}",
)
PLAN_FILE = f"{RESULTS}/plan/{STUDY}-{PLAN['digest']}.json"
if workflow.is_main_process and shutil.which("sbatch"):
    slurm_commands.install(Path(RESULTS))
MANIFESTS = [f"{RESULTS}/jobs/{job}.json" for job in PLAN["jobs"]]
ACCURACY_MANIFESTS = [
    f"{RESULTS}/accuracy/{harness}/jobs/{job}.json"
    for harness, part in PLAN["accuracy"].items()
    for job in part["jobs"]
]
LOCAL_RULES = ["all", "stage", "collect", "figures", "report", "archive"]
LOCAL_RULES += ["figures_computed", "measure_hosted", "measure_hosted_cell"]


# ------------------------------------------------------------------------------------------ environments
# Built by envs/build.py in .envs, or, with --sdm conda or --sdm apptainer, by the same builder in the conda environment
# or the image (envs/deploy).
if any("cuda" in name for name in environments_needed(PLAN)):
    DEPLOY = "cuda"
else:
    DEPLOY = "cpu"
CONDA_FILE = str(PROJECT / "envs" / "deploy" / f"{DEPLOY}.yaml")
IMAGE = f"{config['environments']}/moebench-{DEPLOY}.sif"
DEPLOYED = set(workflow.deployment_settings.deployment_method)
if DeploymentMethod.APPTAINER in DEPLOYED:
    ENVIRONMENTS = "$MOEBENCH_IMAGE_ENVS"
elif DeploymentMethod.CONDA in DEPLOYED:
    ENVIRONMENTS = "$CONDA_PREFIX/environments"
else:
    ENVIRONMENTS = config["environments"]
OWN_BUILD = ENVIRONMENTS == config["environments"]
# relative below the project, whose own path may have characters that a shell interprets
PYTHON = near(sys.executable) if OWN_BUILD else f"{ENVIRONMENTS}/workflow/bin/python"


def python_of(wildcards, threads):
    """Interpreter of the environment that a job needs; Snakemake does not track functions of threads: it may move."""
    return engine_python(job_of(wildcards), {"environments": ENVIRONMENTS})


def before_start():
    """Refuse what would fail, or would measure what is not pinned."""
    refuse_paths(config, workflow)
    refuse_unpinned(PLAN, workflow)
    if OWN_BUILD:
        refuse_unbuilt(PLAN, config, workflow.dag.needrun_jobs())
    progress.begin(workflow)


# ---------------------------------------------------------------------------------- parameters, resources


def untracked(value):
    """A parameter whose change runs nothing again: Snakemake does not track those of functions of the output."""
    return lambda wildcards, output: value


def job_of(wildcards):
    return planned_job(PLAN, wildcards)


def resource(name, scale=lambda attempt: 1):
    """A resource of a job, from the plan; `scale` gives a retry more of it."""
    return lambda wildcards, attempt: int(job_of(wildcards)[name] * scale(attempt))


def across_nodes(value):
    """A resource that only a job of several nodes has."""
    return lambda wildcards: (
        value(job_of(wildcards)) if job_of(wildcards)["nodes"] > 1 else None
    )


# Resources of a job, from the plan.  Without `nodes`, SLURM may spread its GPUs over several.  If it needs several nodes,
# `mpi` and the following make the plugin start it on the first one, outside a job step, which could not hold the GPUs of
# all nodes (docs/facts.md); the engine starts its processes on the others.
asked = dict(
    gpu=resource("gpus"),
    nodes=resource("nodes"),
    mpi=across_nodes(lambda job: "srun"),
    tasks=across_nodes(lambda job: job["nodes"]),
    tasks_per_gpu=across_nodes(lambda job: 0),
    cpus_per_task=resource("cpus"),
    mem_mb=resource("mem_mb", lambda attempt: 1 + 0.5 * (attempt - 1)),
    runtime=resource("runtime_min", lambda attempt: attempt),
)


# ------------------------------------------------------------------------------------------------ inputs


def models_of(wildcards):
    """Models of a job, or of a cell."""
    return staged_files(
        PLAN["engines"][e] for e in engines_of(job_of(wildcards), wildcards)
    )


def read_by_tasks(wildcards):
    """Models and data sets of an accuracy job, or of a cell."""
    part, engines = part_of(PLAN, wildcards), engines_of(job_of(wildcards), wildcards)
    keys = [f"{e}/{c}" for e in engines for c in part["engines"][e]["cells"]]
    if hasattr(wildcards, "cell"):
        keys = [f"{wildcards.engine}/{wildcards.cell}"]
    cells = [part["cells"][key] for key in keys]
    return staged_files((part["engines"][e] for e in engines), cells)


def in_report(figure, labels):
    """A figure's SVG, for `snakemake --report`: under its experiment, with the caption that the page has."""
    return report(
        f"{REPORT}/figures/{figure}.svg",
        caption=os.path.abspath(f"{REPORT}/captions/{figure}.rst"),
        category=labels["experiment"].replace(
            ":", ","
        ),  # Snakemake turns it into a link target
        labels={key: value for key, value in labels.items() if key != "experiment"},
    )
