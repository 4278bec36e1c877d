# Accuracy: one job per engine configuration (or pack of small ones) and harness, separate from the speed jobs.  As
# there, the declared output is the job's manifest, not the records.


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
    conda:
        CONDA_FILE
    container:
        IMAGE
    threads: 1
    resources:
        **asked,
        measuring=1,  # may run beside another such job, but not beside a timed one
    params:
        python=python_of,
        plan=untracked(PLAN_FILE),
        results=untracked(RESULTS),
        cells=lambda wildcards: job_of(wildcards)["digest"],
    shell:
        "{params.python} -m moebench evaluate --plan {params.plan} --harness {wildcards.harness} --job {wildcards.job}"
        " --results {params.results} --engine-log {log}"


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
    conda:
        CONDA_FILE
    container:
        IMAGE
    threads: 1
    resources:
        **asked,
        measuring=1,
    params:
        python=python_of,
        plan=untracked(PLAN_FILE),
        results=untracked(RESULTS),
    shell:
        "{params.python} -m moebench evaluate --plan {params.plan} --harness {wildcards.harness}"
        " --cell {wildcards.engine}/{wildcards.cell} --results {params.results} --engine-log {log}"
