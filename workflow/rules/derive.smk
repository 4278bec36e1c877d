# Derived checkpoints (pruned, quantized): one job each, on a compute node, from what was staged.
import re

from moebench.workflow import parent


def derived(name):
    """What the plan says about a derived model."""
    return lambda wildcards: PLAN["derived"][wildcards.model][name]


rule derive:
    input:
        # ancient: a parent staged again is the same, by its revision
        ancient(lambda wildcards: parent(PLAN, wildcards.model)),
    output:
        f"{config['models']}/{{model}}/moebench-stage.json",
    log:
        f"logs/{STUDY}/derive/{{model}}.log",
    wildcard_constraints:
        model="|".join(map(re.escape, PLAN["derived"])) or "none",
    threads: 1
    resources:
        measuring=1,
        gpu=derived("gpus"),
        nodes=1,
        cpus_per_task=derived("cpus"),
        mem_mb=lambda wildcards, attempt: int(
            derived("mem_mb")(wildcards) * (1 + 0.5 * (attempt - 1))
        ),
        runtime=lambda wildcards, attempt: derived("runtime_min")(wildcards) * attempt,
    params:
        python=lambda wildcards: f"{config['environments']}/{derived('environment')(wildcards)}/bin/python",
    shell:
        "{params.python} -m moebench derive --plan {PLAN_FILE} --model {wildcards.model} --log {log}"
