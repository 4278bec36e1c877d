# Records to tables, figures, the report and its archive.
from moebench.workflow import figure_ids

TABLES = f"{RESULTS}/tables/{STUDY}"
NAMES = ["measurements", "samples", "failures", "plan", "parameters"]
NAMES += ["activation", "activation_layers", "activation_steps"]
NAMES += ["predictions", "claims", "computed", "derived", "accuracy", "machines"]
FIGURES = figure_ids(PLAN)


rule collect:
    input:
        jobs=MANIFESTS,
        accuracy=ACCURACY_MANIFESTS,
        plan=PLAN_FILE,
    output:
        expand(f"{TABLES}/{{name}}.parquet", name=NAMES),
    shell:
        "{sys.executable} -m moebench collect --plan {input.plan} --results {RESULTS} --out {TABLES}"


rule figures:
    input:
        rules.collect.output,
        plan=PLAN_FILE,
    output:
        expand(
            f"{REPORT}/figures/{{figure}}.{{kind}}",
            figure=FIGURES,
            kind=["svg", "pdf", "png", "csv"],
        ),
    shell:
        "{sys.executable} -m moebench figures --plan {input.plan} --tables {TABLES} --out {REPORT}/figures"


rule report:
    input:
        rules.collect.output,
        rules.figures.output,
        plan=PLAN_FILE,
    output:
        f"{REPORT}/report.html",
    shell:
        "{sys.executable} -m moebench report --plan {input.plan} --tables {TABLES} --figures {REPORT}/figures"
        " --out {output}"


rule archive:
    input:
        rules.report.output,
        jobs=MANIFESTS,
        accuracy=ACCURACY_MANIFESTS,
        plan=PLAN_FILE,
    output:
        f"{REPORT}/archive.zip",
    shell:
        "{sys.executable} -m moebench archive --plan {input.plan} --results {RESULTS} --tables {TABLES}"
        " --report {REPORT} --config config --out {output}"
