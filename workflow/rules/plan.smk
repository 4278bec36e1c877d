# What is to be measured, and the models and data sets it needs.  The plan decides the jobs, so it is made when
# Snakemake starts and kept in a file named after its contents (docs/decisions/0012).
from moebench.workflow import (
    engine_python,
    engines_of,
    load_plan,
    one_of,
    part_of,
    planned_job,
    refuse_unbuilt,
    refuse_unpinned,
    roots,
    staged_files,
)

PLAN = load_plan(config, workflow)
STUDY, RESULTS, REPORT = (
    PLAN["study"],
    config["results"],
    f"{config['reports']}/{PLAN['study']}",
)
PLAN_FILE = f"{RESULTS}/plan/{STUDY}-{PLAN['digest']}.json"
MANIFESTS = [f"{RESULTS}/jobs/{job}.json" for job in PLAN["jobs"]]
BUDGET = f" --budget {PLAN['budget']['gpu_hours']}" if "budget" in PLAN else ""
ACCURACY_MANIFESTS = [
    f"{RESULTS}/accuracy/{harness}/jobs/{job}.json"
    for harness, part in PLAN["accuracy"].items()
    for job in part["jobs"]
]
STAGED = roots(PLAN)


# update(): files that are there are checked and kept, not deleted and fetched again.
rule stage:
    output:
        update(STAGED),
    shell:
        "{sys.executable} -m moebench stage --study {STUDY}{BUDGET} --models {config[models]} --data {config[data]}"
        " --environments {config[environments]}"
