# Tables from records; figures, the report and its archive.
TABLES = f"{RESULTS}/tables/{STUDY}"
FIGURES = figure_labels(PLAN)
COMPUTED = {
    name: labels for name, labels in FIGURES.items() if name in computed_figures(PLAN)
}
MEASURED = {name: labels for name, labels in FIGURES.items() if name not in COMPUTED}


rule collect:
    input:
        jobs=MANIFESTS,
        accuracy=ACCURACY_MANIFESTS,
        plan=PLAN_FILE,
    output:
        expand(f"{TABLES}/{{name}}.parquet", name=columns.TABLES),
    log:
        f"logs/{STUDY}/collect.log",
    conda:
        CONDA_FILE
    container:
        IMAGE
    params:
        python=untracked(PYTHON),
        results=untracked(RESULTS),
        tables=untracked(TABLES),
    shell:
        "{params.python} -m moebench collect --plan {input.plan} --results {params.results} --out {params.tables}"
        " 2>&1 | tee {log}"


# Figures that need only the plan: drawn while models are staged.
rule figures_computed:
    input:
        plan=PLAN_FILE,
    output:
        [in_report(*figure) for figure in COMPUTED.items()],
        expand(f"{REPORT}/figures/{{figure}}.csv", figure=COMPUTED),
    log:
        f"logs/{STUDY}/figures-computed.log",
    conda:
        CONDA_FILE
    container:
        IMAGE
    params:
        python=untracked(PYTHON),
        figures=untracked(f"{REPORT}/figures"),
    shell:
        "{params.python} -m moebench figures --only computed --plan {input.plan} --out {params.figures} 2>&1 | tee {log}"


rule figures:
    input:
        rules.collect.output,
        plan=PLAN_FILE,
    output:
        [in_report(*figure) for figure in MEASURED.items()],
        expand(f"{REPORT}/figures/{{figure}}.csv", figure=MEASURED),
    log:
        f"logs/{STUDY}/figures.log",
    conda:
        CONDA_FILE
    container:
        IMAGE
    params:
        python=untracked(PYTHON),
        tables=untracked(TABLES),
        figures=untracked(f"{REPORT}/figures"),
    shell:
        "{params.python} -m moebench figures --only measured --plan {input.plan} --tables {params.tables} --out {params.figures}"
        " 2>&1 | tee {log}"


rule report:
    input:
        rules.collect.output,
        rules.figures_computed.output,
        rules.figures.output,
        plan=PLAN_FILE,
    output:
        page=f"{REPORT}/report.html",
        captions=expand(f"{REPORT}/captions/{{figure}}.rst", figure=FIGURES),
    log:
        f"logs/{STUDY}/report.log",
    conda:
        CONDA_FILE
    container:
        IMAGE
    params:
        python=untracked(PYTHON),
        tables=untracked(TABLES),
        figures=untracked(f"{REPORT}/figures"),
    shell:
        "{params.python} -m moebench report --plan {input.plan} --tables {params.tables} --figures {params.figures}"
        " --out {output.page} 2>&1 | tee {log}"


rule archive:
    input:
        page=rules.report.output.page,
        jobs=MANIFESTS,
        accuracy=ACCURACY_MANIFESTS,
        plan=PLAN_FILE,
    output:
        f"{REPORT}/archive.zip",
    log:
        f"logs/{STUDY}/archive.log",
    conda:
        CONDA_FILE
    container:
        IMAGE
    params:
        python=untracked(PYTHON),
        config=untracked(CONFIG_FOLDER),
        results=untracked(RESULTS),
        tables=untracked(TABLES),
        report=untracked(REPORT),
    shell:
        "{params.python} -m moebench archive --plan {input.plan} --results {params.results} --tables {params.tables}"
        " --report {params.report} --config {params.config} --out {output} 2>&1 | tee {log}"
