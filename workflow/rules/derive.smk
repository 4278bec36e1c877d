# Derived checkpoints (pruned, quantized): jobs on a compute node, created from staged models, one each or packs of small
# ones.  There is one rule per job, since each job has its own outputs.
from moebench.commands.snakefile import derived_files, parent_files

for number, (job, needs) in enumerate(PLAN["derive_jobs"].items()):

    rule:
        name:
            f"derive_{number}"
        input:
            # ancient: a parent that is staged again has the same revision
            ancient(parent_files(PLAN, job)),
        output:
            derived_files(PLAN, job),
        log:
            f"logs/{STUDY}/derive/{job}.log",
        priority: 1  # others wait for them
        conda:
            CONDA_FILE
        container:
            IMAGE
        threads: 1
        resources:
            measuring=1,
            gpu=needs["gpus"],
            nodes=1,
            cpus_per_task=needs["cpus"],
            mem_mb=lambda wildcards, attempt, most=needs["mem_mb"]: most
            * (attempt + 1)
            // 2,
            runtime=lambda wildcards, attempt, most=needs["runtime_min"]: most * attempt,
        params:
            python=untracked(engine_python(needs, {"environments": ENVIRONMENTS})),
            plan=untracked(PLAN_FILE),
            models=needs["models"],
        shell:
            "{params.python} -m moebench derive --plan {params.plan} --model {params.models} --log {log}"
