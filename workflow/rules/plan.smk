# What is to be measured (made when Snakemake starts: it decides the jobs), and the models it needs.
from moebench.workflow import engine_python, load_plan, refuse_unpinned

PLAN = load_plan(config, workflow)
STUDY, RESULTS, REPORT = PLAN["study"], config["results"], f"{config['reports']}/{PLAN['study']}"
PLAN_FILE = f"{RESULTS}/plan/{STUDY}.json"
MANIFESTS = [f"{RESULTS}/jobs/{job}.json" for job in PLAN["jobs"]]
STAGED = sorted({f"{e['model']['path']}/moebench-stage.json" for e in PLAN["engines"].values()})


rule plan:
    output:
        PLAN_FILE,
    params:
        digest=PLAN["digest"],
    shell:
        "{sys.executable} -m moebench plan --study {STUDY} --write {output}"


# update(): files that are there are checked and kept, not deleted and fetched again.
rule stage:
    output:
        update(STAGED),
    shell:
        "{sys.executable} -m moebench stage --study {STUDY}"
