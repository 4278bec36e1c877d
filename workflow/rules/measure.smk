# One job per engine configuration (or pack of small ones).  The declared output is the job's manifest: the records
# of its cells are not outputs, so that Snakemake does not delete what was measured when a job fails.


def resource(name, scale=lambda attempt: 1):
    """A resource of a job, from the plan; `scale` gives a retry more of it."""
    return lambda wildcards, attempt: int(job_of(wildcards)[name] * scale(attempt))


def job_of(wildcards):
    return planned_job(PLAN, wildcards)


def across_nodes(value):
    """A resource that only a job of several nodes has."""
    return lambda wildcards: (
        value(job_of(wildcards)) if job_of(wildcards)["nodes"] > 1 else None
    )


# What a job asks for, from the plan.  Without `nodes` SLURM may take its GPUs from several.  Where it needs several,
# `mpi` and what follows make the plugin start it on the first of them, outside a job step, which could not hold the
# GPUs of all (docs/facts.md); the engine starts the rest of itself on the others.
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


def models_of(wildcards):
    return staged_files(
        PLAN["engines"][e] for e in engines_of(job_of(wildcards), wildcards)
    )


# Jobs that only send requests to a service elsewhere: no device, and run where Snakemake runs (see below).
HOSTED_JOBS = one_of(name for name, job in PLAN["jobs"].items() if job["hosted"])
HOSTED_ENGINES = one_of(
    name for name, e in PLAN["engines"].items() if e["runtime"]["hosted"]
)


rule measure:
    input:
        # ancient: a newer model folder alone measures nothing again.  The plan is no input for the same reason:
        # changed cells run the job again through the digest of its cells.
        models=ancient(models_of),
    output:
        f"{RESULTS}/jobs/{{job}}.json",
    log:
        f"logs/{STUDY}/{{job}}.log",
    wildcard_constraints:
        job=f"(?!(?:{HOSTED_JOBS})[.]json$)[^/]+",
    threads: 1
    resources:
        **asked,
        measuring=2,  # all there is (profiles/local): nothing runs beside it
    params:
        # Snakemake reruns nothing for what a function of threads gives: environments may move.
        python=lambda wildcards, threads: engine_python(job_of(wildcards), config),
        cells=lambda wildcards: PLAN["jobs"][wildcards.job]["digest"],
    shell:
        "{params.python} -m moebench measure --plan {PLAN_FILE} --job {wildcards.job} --results {RESULTS} --engine-log {log}"


# A single cell, by the path of its record:  snakemake --force results/cells/ENGINE/CELL.json
rule measure_cell:
    input:
        models=ancient(models_of),
    output:
        f"{RESULTS}/cells/{{engine}}/{{cell}}.json",
    log:
        f"logs/{STUDY}/{{engine}}/{{cell}}.log",
    wildcard_constraints:
        engine=f"(?!(?:{HOSTED_ENGINES})/)[^/]+",
        cell="[^/]+",
    threads: 1
    resources:
        **asked,
        measuring=2,  # all there is (profiles/local): nothing runs beside it
    params:
        python=lambda wildcards, threads: engine_python(job_of(wildcards), config),
    shell:
        "{params.python} -m moebench measure --plan {PLAN_FILE} --cell {wildcards.engine}/{wildcards.cell}"
        " --results {RESULTS} --engine-log {log}"


# Through a hosted service: local rules, since compute nodes usually have no way out, and the key is in the user's shell.
use rule measure as measure_hosted with:
    wildcard_constraints:
        job=HOSTED_JOBS,


use rule measure_cell as measure_hosted_cell with:
    wildcard_constraints:
        engine=HOSTED_ENGINES,
        cell="[^/]+",


localrules:
    measure_hosted,
    measure_hosted_cell,
