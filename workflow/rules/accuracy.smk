# Accuracy: one job per engine configuration (or pack of small ones) and harness, apart from the speed jobs.  As there,
# the declared output is the job's manifest and the records are not.


def read_by_tasks(wildcards):
    """Models and data sets of a job, or of a cell."""
    part, engines = part_of(PLAN, wildcards), engines_of(job_of(wildcards), wildcards)
    keys = [f"{e}/{c}" for e in engines for c in part["engines"][e]["cells"]]
    if hasattr(wildcards, "cell"):
        keys = [f"{wildcards.engine}/{wildcards.cell}"]
    cells = [part["cells"][key] for key in keys]
    return staged_files((part["engines"][e] for e in engines), cells)


rule evaluate:
    input:
        # ancient: as for measure
        files=ancient(read_by_tasks),
    output:
        f"{RESULTS}/accuracy/{{harness}}/jobs/{{job}}.json",
    log:
        f"logs/{STUDY}/{{harness}}/{{job}}.log",
    wildcard_constraints:
        harness="[^/]+",
        job="[^/]+",
    threads: 1
    resources:
        **asked,
        measuring=1,  # nothing that is timed runs beside it, another such job may
    params:
        # Snakemake reruns nothing for what a function of threads gives: environments may move.
        python=lambda wildcards, threads: engine_python(job_of(wildcards), config),
        cells=lambda wildcards: job_of(wildcards)["digest"],
    shell:
        "{params.python} -m moebench evaluate --plan {PLAN_FILE} --harness {wildcards.harness} --job {wildcards.job}"
        " --results {RESULTS} --engine-log {log}"


# A single cell:  snakemake --force results/accuracy/lm-eval/cells/ENGINE/CELL.json
rule evaluate_cell:
    input:
        files=ancient(read_by_tasks),
    output:
        f"{RESULTS}/accuracy/{{harness}}/cells/{{engine}}/{{cell}}.json",
    log:
        f"logs/{STUDY}/{{harness}}/{{engine}}/{{cell}}.log",
    wildcard_constraints:
        harness="[^/]+",
        engine="[^/]+",
        cell="[^/]+",
    threads: 1
    resources:
        **asked,
        measuring=1,
    params:
        python=lambda wildcards, threads: engine_python(job_of(wildcards), config),
    shell:
        "{params.python} -m moebench evaluate --plan {PLAN_FILE} --harness {wildcards.harness}"
        " --cell {wildcards.engine}/{wildcards.cell} --results {RESULTS} --engine-log {log}"
