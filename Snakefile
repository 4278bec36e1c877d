# MoE-Inference-Bench: config/ -> plan -> stage -> measure -> tables -> figures -> report.
# Rules hold one command each; what they do lives in workflow/moebench.
import os
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")


configfile: "config/config.yaml"


# The package is imported from here, and found by the commands of every rule.
PACKAGE = str(Path(workflow.basedir) / "workflow")
sys.path.insert(0, PACKAGE)
os.environ["PYTHONPATH"] = os.pathsep.join(
    dict.fromkeys(
        [PACKAGE, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    )
)


from moebench import progress


include: "workflow/rules/plan.smk"
include: "workflow/rules/derive.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/accuracy.smk"
include: "workflow/rules/report.smk"


localrules:
    all,
    stage,
    collect,
    figures,
    report,
    archive,


rule all:
    default_target: True
    input:
        f"{REPORT}/report.html",
        # asked for by name: Snakemake makes no missing input again for an output that is there
        MANIFESTS,
        ACCURACY_MANIFESTS,


onstart:
    refuse_unpinned(PLAN, workflow)
    refuse_unbuilt(PLAN, config, workflow.dag.needrun_jobs())
    progress.begin(workflow)
