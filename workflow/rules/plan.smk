# The models and data sets that the plan needs.
STAGED = roots(PLAN)


# update(): existing files are checked and kept, not deleted and downloaded again.
rule stage:
    output:
        update(STAGED),
    log:
        f"logs/{STUDY}/stage.log",
    conda:
        CONDA_FILE
    container:
        IMAGE
    params:
        python=untracked(PYTHON),
        plan=untracked(PLAN_FILE),
        study=untracked(STUDY),
        config=untracked(CONFIG_FOLDER),
        models=untracked(config["models"]),
        data=untracked(config["data"]),
        environments=untracked(ENVIRONMENTS),
    shell:
        "{params.python} -m moebench stage --config {params.config} --study {params.study} --plan {params.plan}"
        " --models {params.models} --data {params.data} --environments {params.environments} 2>&1 | tee {log}"
