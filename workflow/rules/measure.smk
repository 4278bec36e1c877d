# One job per engine configuration (or pack of small ones).  The declared output is the job's manifest.  The records of
# its cells are not outputs, so Snakemake does not delete measurements when a job fails.

# Jobs that only send requests to a hosted service need no device and run where Snakemake runs (see below).
HOSTED_JOBS = one_of(name for name, job in PLAN["jobs"].items() if job["hosted"])
HOSTED_ENGINES = one_of(
    name for name, e in PLAN["engines"].items() if e["runtime"]["hosted"]
)


rule measure:
    input:
        # ancient: a newer model folder alone measures nothing again.  For the same reason the plan is not an input:
        # changed cells run the job again through the digest of its cells.
        models=ancient(models_of),
    output:
        f"{RESULTS}/jobs/{{job}}.json",
    log:
        f"logs/{STUDY}/{{job}}.log",
    wildcard_constraints:
        job=f"(?!(?:{HOSTED_JOBS})[.]json$)[^/]+",
    conda:
        CONDA_FILE
    container:
        IMAGE
    threads: 1
    resources:
        **asked,
        measuring=2,  # all units (profiles/local): nothing runs beside it
    params:
        python=python_of,
        plan=untracked(PLAN_FILE),
        results=untracked(RESULTS),
        cells=lambda wildcards: PLAN["jobs"][wildcards.job]["digest"],
    shell:
        "{params.python} -m moebench measure --plan {params.plan} --job {wildcards.job} --results {params.results}"
        " --engine-log {log}"


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
    conda:
        CONDA_FILE
    container:
        IMAGE
    threads: 1
    resources:
        **asked,
        measuring=2,  # all units (profiles/local): nothing runs beside it
    params:
        python=python_of,
        plan=untracked(PLAN_FILE),
        results=untracked(RESULTS),
    shell:
        "{params.python} -m moebench measure --plan {params.plan} --cell {wildcards.engine}/{wildcards.cell}"
        " --results {params.results} --engine-log {log}"


# Hosted services: local rules, since compute nodes usually have no internet access, and the key is in the user's shell.
use rule measure as measure_hosted with:
    wildcard_constraints:
        job=HOSTED_JOBS,


use rule measure_cell as measure_hosted_cell with:
    wildcard_constraints:
        engine=HOSTED_ENGINES,
        cell="[^/]+",
