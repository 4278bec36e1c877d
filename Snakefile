# MoE-Inference-Bench: config/ -> plan -> stage -> measure -> tables -> figures -> report.
# Each rule runs one command; the code is in workflow/moebench.
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.0")

# The folder of this file, not the working directory: another workflow may use this one as a module (docs/snakemake.md).
PROJECT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True))
if not (PROJECT / "workflow" / "moebench").is_dir():
    raise WorkflowError(
        f"{PROJECT}: not a checkout of MoE-Inference-Bench; clone it and name its Snakefile"
    )


configfile: PROJECT / "config" / "config.yaml"


# The package is imported from here, and the commands of every rule find it here.
PACKAGE = str(PROJECT / "workflow")
sys.path.insert(0, PACKAGE)
search_path = [
    PACKAGE,
    *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)),
]
os.environ.update(
    PYTHONPATH=os.pathsep.join(dict.fromkeys(search_path)),
    MOEBENCH_PROJECT=str(PROJECT),  # for envs/deploy
)


include: "workflow/rules/common.smk"
include: "workflow/rules/plan.smk"
include: "workflow/rules/derive.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/accuracy.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        rules.report.output,
        # requested by name: Snakemake does not recreate a missing input of an existing output
        MANIFESTS,
        ACCURACY_MANIFESTS,


# By function: a workflow that uses this one as a module may rename the rules.
workflow.localrules(*map(workflow.modifier.modify_rulename, LOCAL_RULES))


onstart:
    before_start()
