"""Campaigns: what travels, in which order, what results must be to come home.  Records are made up."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

import campaigns
import studies
from campaigns import ABOUT, BLOCKS, DUMMY, ENGINES, measured, parcel, record
from moebench.campaign import bring_home, engine_archives, machine, order, parcels, run
from moebench.campaign.estimates import REMEMBERED, Estimates
from moebench.campaign.model_files import word_tokenizer
from moebench.campaign.pack import RUN, portable
from moebench.campaign.run import Clock
from moebench.claims import budget
from moebench.commands import campaign as verbs
from moebench.commands import cli
from moebench.commands.planning import make_plan
from moebench.config import Config
from moebench.errors import UserError
from moebench.measure import manifest, records
from moebench.storage.atomic import canonical_bytes
from moebench.tables import gather, parquet


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Read by the tests, written by none; nothing is staged in its folder of models."""
    return Config(campaigns.folder(tmp_path_factory.mktemp("study")))


@pytest.fixture(scope="module")
def planned(config):
    return pickle.dumps(make_plan(config, "test", choose=lambda plan: portable(plan, 1)))


@pytest.fixture
def plan(planned):
    return pickle.loads(planned)


@pytest.fixture(scope="module")
def papers(tmp_path_factory):
    """Read by the tests: a part of the paper's study."""
    part = ["fig03-latency-llms", "fig05-topk-batch", "faster-moe-pool", "fig13-parallelism"]
    return make_plan(Config(studies.part(tmp_path_factory.mktemp("papers"), "paper", part)), "paper")


@pytest.fixture
def without_code(monkeypatch):
    """Archives without the package, which half of their time goes into."""
    monkeypatch.setattr("moebench.campaign.pack._add_code", lambda root: None)


# ------------------------------------------------------------------------------------ what travels, when


def test_only_what_one_device_can_measure_travels(config, plan, papers):
    whole = make_plan(config, "test")
    gone = {
        whole["engines"][whole["cells"][key]["engine"]]["config"]["tp"]
        for key in set(whole["cells"]) - set(plan["cells"])
    }
    assert len(whole["cells"]) == 6 and len(plan["cells"]) == 4 and gone == {1, 2}
    assert {e["runtime"]["kind"] for e in plan["engines"].values()} == {"vllm", "transformers"}
    assert set(plan["cells"]) < set(whole["cells"]), "ids are those of the whole plan"
    assert len(portable(whole, 2)) == 5
    away = portable(papers, 1)

    def on_one_device(derived, fits):
        return {
            f"{name}/{cell}"
            for name, engine in papers["engines"].items()
            for cell in engine["cells"]
            if engine["gpus"] == 1 and bool(engine["model"]["derived"]) == derived
            and budget.fits(papers, {"engine": name, "cell": cell}) == fits
        }  # fmt: skip

    assert away == on_one_device(derived=False, fits=True) and away < set(papers["cells"])
    assert on_one_device(derived=True, fits=True) and on_one_device(derived=False, fits=False), "are left here"


def test_every_cell_once_and_what_decides_most_claims_first(papers):
    made = order.sessions(papers)
    keys = [f"{s['engine']}/{c['cell']}" for s in made for c in s["cells"]]
    assert sorted(keys) == sorted(papers["cells"])
    wanted = {c: cells & set(papers["cells"]) for c, cells in budget.needs(papers).items()}
    half = len(keys) // 2
    first, last = (
        sum(bool(cells) and cells <= set(part) for cells in wanted.values()) for part in (keys[:half], keys[-half:])
    )
    assert first > 2 * max(last, 1), (first, last)
    loads = [s["engine"] for s in made]
    assert len(loads) - len(set(loads)) <= 2, "a load is paid once, but for what takes longer than a load"


def test_a_cell_of_no_claim_waits_if_it_takes_longer_than_a_load(plan, monkeypatch):
    first, *others = [k for k in plan["cells"] if k.startswith("tiny-mixtral")]
    monkeypatch.setattr(budget, "needs", lambda plan: {"C-1": {first}})
    plan["jobs_settings"]["load_s"] = 10.0
    plan["cells"][others[1]]["predicted"]["run_s"] = 60.0
    made = [(s["engine"], [c["cell"] for c in s["cells"]]) for s in order.sessions(plan)]
    engine = first.partition("/")[0]
    assert made[0] == (engine, [k.partition("/")[2] for k in (first, others[0])])
    assert made[1][0].startswith("tiny-olmoe") and made[2] == (engine, [others[1].partition("/")[2]])


def test_estimates_learn_from_the_machine_and_remember(tmp_path):
    known = Estimates(tmp_path / "campaign.json")
    assert known.estimate("load", "x", 60) == 60
    for took in (90, 30, *[60] * (REMEMBERED - 1)):
        known.note("load", "x", 60, took)
    known.note("cell", "x/y", 10, 40)
    again = Estimates(tmp_path / "campaign.json")
    assert again.estimate("load", "y", 60) == 60, "the slow first load is long ago"
    assert again.estimate("cell", "x/z", 5) == 20 and again.began == known.began
    again.cut_off("x/z", 40)
    again.cut_off("x/z", 10)
    assert Estimates(again.path).estimate("cell", "x/z", 5) == 60, "it had 40 s, which were too few"


def test_the_clock_keeps_time_for_the_end():
    clock = Clock(minutes=9, started=0.0)
    assert clock.end == 540 and clock.reserve_s == 15 and Clock(0.5).reserve_s == 3
    assert Clock(0.5).left_s() == pytest.approx(27, abs=0.5)


def test_nothing_is_begun_that_cannot_be_finished(plan, tmp_path):
    driver = run.CampaignDriver(plan, tmp_path, tmp_path / "log", print)
    driver.clock, driver.estimates = SimpleNamespace(left_s=lambda: 100.0), Estimates(tmp_path / "campaign.json")
    driver.expected = {"e": 60.0, "e/short": 30.0, "e/long": 50.0}
    assert driver.has_time("e", "short") and not driver.has_time("e", "long"), "load and run"
    driver.estimates.note("load", "e", 60, 90)
    assert not driver.has_time("e", "short"), "loads take longer here than was expected"
    driver.loaded = True
    assert driver.has_time("e", "long")
    with pytest.raises(KeyboardInterrupt), driver.cutting_off("e/long"):
        driver.estimates.state["cut_off"] = {"e/long": 90.0}
        raise KeyboardInterrupt
    assert not driver.has_time("e", "long") and driver.has_time("e", "short"), "the others are not held up"
    driver.estimates.note("cell", "e/short", 30, 120)
    assert not driver.has_time("e", "short")


@pytest.fixture
def bare(tmp_path, monkeypatch, without_code):
    """Packs studies, unpacks them in an empty folder, and gives the campaign there and what it says; the engines'
    answers are scripted: a load is lost where ``lost(engine configuration)``."""
    worker = SimpleNamespace(said=lambda: "", close=lambda: None)

    def unpacked(folder, names, lost):
        verbs.pack(Config(folder), names, tmp_path / "c.tar.gz")
        with tarfile.open(tmp_path / "c.tar.gz") as packed:
            packed.extractall(tmp_path, filter="data")

        def ask(driver, request, timeout_s, phase):
            if request["do"] == "load":
                if lost(request["engine"]):
                    driver.stop_worker()
                    return {"status": "crashed", "reason": "no driver"}
                return {"facts": {"resolved_config": {}}, "took_s": 0.0}
            values = {"e2e_s": 1.0, "throughput_total_tokens_per_s": 1.0}
            return {"status": "ok", "reason": "", "repeats": [{"metrics": values}]}

        monkeypatch.setattr(run.CampaignDriver, "ask", ask)
        monkeypatch.chdir(tmp_path / "campaign")
        campaign = run.Campaign(Path.cwd(), tmp_path / "out", Clock(60))
        said = []
        campaign.say = said.append
        return campaign, said

    monkeypatch.setattr("moebench.measure.driver.Worker", lambda *_: worker)
    monkeypatch.setattr(run.CampaignDriver, "watch", lambda driver, spec: None)
    monkeypatch.setattr(machine, "_IMPORTS", dict.fromkeys(machine._IMPORTS, "print('engines may say things')"))
    monkeypatch.setattr(machine, "_DEVICES", "; print('{}')")
    return unpacked


def test_a_study_whose_loads_fail_makes_room_for_the_next(tmp_path, bare):
    """vLLM cannot be loaded, transformers can."""
    lengths = {"batch": 1, "input_tokens": 16, "output_tokens": 8}
    cells = {"fix": lengths, "cross": {"model": ["tiny-mixtral", "tiny-olmoe", "tiny-qwen3-moe"]}}
    folder = studies.folder(tmp_path, {"asked": [cells]}, tmp_path / "models", defaults=DUMMY)
    other = studies.read(folder / "studies/test.yaml") | {
        "name": "other",
        "engine": ENGINES["transformers"],
    }
    studies.write(folder / "studies/other.yaml", other)
    campaign, said = bare(folder, ["test", "other"], lambda engine: engine["runtime"]["kind"] == "vllm")
    campaign.run()
    found = [records.load(path) for path in sorted(Path("results/cells").glob("*/*.json"))]
    assert Counter((r["study"], r["status"]) for r in found) == {("test", "crashed"): 2, ("other", "ok"): 3}
    assert any("study test: abandoned for now, 2 loads in a row failed" in line for line in said)
    assert campaign.summary()[1] == 3, "the crashed ones are tried again"
    (part,) = campaign.pack()
    counts = bring_home.take(
        [part], {s: make_plan(Config(folder), s) for s in ("test", "other")}, tmp_path / "home", "x"
    ).counts
    assert counts[parcels.NEW] == 5


def test_a_model_that_cannot_be_loaded_does_not_take_the_time_of_the_others(tmp_path, bare):
    """Its other configurations come last, in the next call too: one missing kernel of it is not the machine's fault."""
    fix = {"batch": 1, "input_tokens": 16, "output_tokens": 8}
    blocks = [{"fix": fix | {"model": "tiny-deepseek-v2"}, "cross": {"top_k": [1, 2, 6]}},
              {"fix": fix, "cross": {"model": ["tiny-mixtral", "tiny-olmoe"]}}]  # fmt: skip
    live = {"live_top_k": False, "defaults": DUMMY}
    folder = studies.folder(tmp_path, {"asked": blocks}, tmp_path / "models", **live)
    campaign, said = bare(folder, ["test"], lambda engine: engine["model"]["name"] == "tiny-deepseek-v2")
    plan = campaign.plans["test"]
    sessions = sorted(campaign.about["studies"][0]["sessions"], key=lambda s: "deepseek" not in s["engine"])
    for call in (1, 2):
        said.clear()
        campaign.run_study(plan, sessions)
        loads = [line.split(".")[0] for line in said if line.startswith("loading")]
        found = Counter(records.load(p)["status"] for p in Path("results/cells").glob("*/*.json"))
        assert found["ok"] == 2, said
        if call == 1:
            first, *rest = loads
            assert "deepseek" in first and not any("deepseek" in load for load in rest[:2]) and "deepseek" in rest[2]
        else:
            assert all("deepseek" in load for load in loads)


def test_a_study_for_other_devices_is_left_out_before_anything_is_loaded(tmp_path, bare, monkeypatch):
    """An archive may hold a study for each machine that one may be lent."""
    fix = {"model": "qwen1.5-moe-a2.7b", "batch": 1, "input_tokens": 16, "output_tokens": 8}
    folder = studies.folder(tmp_path, {"asked": [{"fix": fix}]}, tmp_path / "models", hardware="h100-sxm5-80gb",
                            defaults={"weights": "dummy"})  # fmt: skip
    other = studies.read(folder / "studies/test.yaml") | {"name": "other", "hardware": "h200-sxm-141gb"}
    studies.write(folder / "studies/other.yaml", other)
    campaign, said = bare(folder, ["test", "other"], lambda engine: False)
    here = {"gpus": [{"name": "NVIDIA H200", "memory_bytes": 150.1e9, "multiprocessors": 132}]}
    monkeypatch.setattr(machine, "_DEVICES", f"; print({json.dumps(json.dumps(here))})")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    campaign.run()
    found = [records.load(path) for path in sorted(Path("results/cells").glob("*/*.json"))]
    assert {r["study"] for r in found} == {"other"} and len(found) == 1, said
    assert any("study test: not measured, this machine has NVIDIA H200" in line for line in said)
    assert any("warning: no C compiler" in line for line in said), "Triton would say so after a load"


def test_the_bare_machine_needs_only_the_standard_library():
    code = "import sys; sys.path.insert(0, 'workflow'); import moebench.campaign.run"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, cwd=studies.ROOT)


# ----------------------------------------------------------------------------------------------- packing


def test_the_archive_has_code_plan_configs_and_tokenizers(config, tmp_path):
    out = tmp_path / "c.tar.gz"
    said = str(verbs.pack(config, ["test"], out))
    assert "study test: 4 cells" in said and "2 models are not staged here" in said
    with tarfile.open(out) as packed:
        names = set(packed.getnames())
        about = json.load(packed.extractfile("campaign/campaign.json"))
        plan = json.load(packed.extractfile("campaign/plans/test.json"))
    paths = {e["model"]["path"] for e in plan["engines"].values()}
    assert all(path.startswith("models/") for path in paths) and sorted(about["stand_ins"]) == sorted(paths)
    assert {
        f"campaign/{p}/{f}" for p in paths for f in ("config.json", "tokenizer.json", "moebench-stage.json")
    } < names
    assert {"campaign/run.sh", "campaign/workflow/moebench/measure/driver.py"} < names
    assert not any("__pycache__" in name for name in names)
    assert sum(len(s["cells"]) for s in about["studies"][0]["sessions"]) == 4


@pytest.mark.parametrize("found", ["#!/bin/sh\nexit 1\n", None])
def test_a_python_that_is_too_old_or_not_there_is_one_line(tmp_path, found):
    """The one there ends as Python 3.10 does when it is asked for 3.11."""
    (tmp_path / "run.sh").write_text(RUN)
    python = tmp_path / "python3"
    if found:
        python.write_text(found)
        python.chmod(0o755)
    command = ["/bin/sh", tmp_path / "run.sh", "--minutes", "9"]
    done = subprocess.run(command, env={"PYTHON": str(python)}, capture_output=True, text=True)
    assert done.returncode == 2 and f"{python} is not Python 3.11 or newer" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_trained_weights_do_not_travel_unless_they_are_staged(tmp_path):
    given = Config(studies.folder(tmp_path, {"asked": BLOCKS[:1]}, tmp_path / "models"))
    with pytest.raises(UserError, match="`moebench stage --study test`"):
        verbs.pack(given, ["test"], tmp_path / "c.tar.gz")
    assert not (tmp_path / "c.tar.gz").exists()


def test_nothing_to_pack_is_said(config, tmp_path, without_code):
    services = studies.folder(tmp_path / "b", {"asked": BLOCKS[3:]}, engines=ENGINES, defaults=DUMMY)
    with pytest.raises(UserError, match=r"none of its cells .* 1 device"):
        verbs.pack(Config(services), ["test"], tmp_path / "c.tar.gz")
    with pytest.raises(UserError, match=r"no \*.tar.xz there"):
        verbs.pack(config, ["test"], tmp_path / "c.tar.gz", engine=tmp_path)


def test_a_figure_that_could_not_be_drawn_is_refused_before_anything_travels(tmp_path):
    figure = {"id": "f", "number": "1", "title": "T", "kind": "lines", "x": "batch", "y": ["tpot_s"]}
    block = {"fix": {"model": "tiny-mixtral", "input_tokens": 16}, "cross": {"batch": [1, 2], "output_tokens": [4, 8]}}
    asked = {"asked": {"blocks": [block], "figures": [figure]}}
    config = Config(studies.folder(tmp_path, asked, tmp_path / "models", defaults=DUMMY))
    with pytest.raises(UserError, match="figure f: 2 cells have the same position"):
        verbs.pack(config, ["test"], tmp_path / "campaign.tar.gz")
    assert not (tmp_path / "campaign.tar.gz").exists()


def test_the_stand_in_tokenizers_tokens_are_words():
    made = word_tokenizer(300)["model"]["vocab"]
    assert sorted(made.values()) == list(range(300)) and {"the", "."} < set(list(made)[:20])


# ---------------------------------------------------------------------------------------- coming home


def test_parcels_are_small_and_whole(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(parcels, "MOST_BYTES", 5_000)
    (tmp_path / "there/logs").mkdir(parents=True)
    (tmp_path / "there/logs/test.engine.log").write_bytes(b"x" * 300_000 + b"the end")
    manifest.add_canary(tmp_path / "there", "e", [{"engine": "e", "n": 1}])
    made = parcel(plan, tmp_path / "there", tmp_path / "out")
    assert len(made) > 2 and all(path.stat().st_size <= 5_000 for path in made)
    read = [parcels.read(path) for path in made]
    home = tmp_path / "home"
    for one in read:
        parcels.unpack(one, home)
    for folder in ("cells", "canary"):
        there = {
            p.relative_to(tmp_path / "there"): p.read_bytes() for p in (tmp_path / "there" / folder).rglob("*.json")
        }
        assert there and there == {p.relative_to(home): p.read_bytes() for p in (home / folder).rglob("*.json")}
    (log,) = [one.logs["test.engine.log"] for one in read if one.logs]
    assert len(log) == 200_000 and log.endswith(b"the end")
    monkeypatch.setattr(parcels, "MOST_BYTES", 2**24)
    assert len(parcel(plan, tmp_path / "there", tmp_path / "out")) == 1, "old parts are gone"
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_damage_anywhere_is_refused_with_one_line(plan, tmp_path):
    (made,) = parcel(plan, tmp_path / "there", tmp_path / "out")
    data = made.read_bytes()
    broken = tmp_path / "broken.zip"
    for cut in (0, 10, len(data) // 2, len(data) - 1):
        broken.write_bytes(data[:cut])
        with pytest.raises(UserError, match=r"broken\.zip: ") as error:
            parcels.read(broken)
        assert "\n" not in str(error.value)
    clean = parcels.read(made)
    for place in range(0, len(data), len(data) // 60):
        flipped = bytearray(data)
        flipped[place] ^= 0x10
        broken.write_bytes(flipped)
        try:
            found = parcels.read(broken)
        except UserError as error:
            assert str(error).startswith(f"{broken}: ") and "\n" not in str(error)
        else:  # a byte that says nothing, such as a date: what is read is all the same
            assert found == clean


def rewritten(path, change):
    """A parcel with one file changed and everything else as it was."""
    with zipfile.ZipFile(path) as old:
        files = {name: old.read(name) for name in old.namelist()}
    change(files)
    with zipfile.ZipFile(path, "w") as new:
        for name, data in files.items():
            new.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.pop(next(n for n in f if n.startswith("cells"))), "changed since it was written"),
        (lambda f: f.update({"cells/a/b.json": b"{}"}), r"changed since it was written \(cells/a/b.json\)"),
        (lambda f: f.update({"../evil": b"x"}), "changed since it was written"),
        (lambda f: f.pop("parcel.json"), r"parcel\.json is missing"),
        (lambda f: f.update({"parcel.json": f["parcel.json"].replace(b'"schema":1', b'"schema":9')}), "schema 9"),
    ],
)
def test_files_that_are_not_as_written(plan, tmp_path, change, said):
    (made,) = parcel(plan, tmp_path / "there", tmp_path / "out")
    with pytest.raises(UserError, match=said):
        parcels.read(rewritten(made, change))


def test_importing_twice_changes_nothing_and_worse_never_replaces_better(plan, tmp_path):
    key, other, *_ = plan["cells"]
    here = tmp_path / "home"
    failed = record(plan, key, status="crashed") | {"ended_at": "2026-03-01T09:00:00.000000Z"}
    assert parcels.take(here, failed) == parcels.NEW
    assert parcels.take(here, failed | {"reason": "another crash"}) == parcels.KEPT
    assert parcels.take(here, record(plan, key, status="oom_kv")) == parcels.BETTER
    assert parcels.take(here, record(plan, key)) == parcels.BETTER
    kept = records.cell_path(here, *key.split("/")).read_bytes()
    for worse in ("ok", "oom_kv", "crashed", "invalid"):
        assert parcels.take(here, record(plan, key, status=worse) | {"attempt": 2}) == parcels.KEPT
    assert records.cell_path(here, *key.split("/")).read_bytes() == kept
    assert parcels.take(here, record(plan, other)) == parcels.NEW


def imported(config, tmp_path, files, **more):
    return str(verbs.import_files(config, files, tmp_path / "results", **more))


def taken(plan, tmp_path, files, name=None):
    """The records alone, without tables."""
    return bring_home.take(files, {"test": plan}, tmp_path / "results", name)


def snapshot(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and "tables" not in p.parts}


def test_packing_and_importing_as_json(config, plan, tmp_path, capsys, without_code):
    for arguments, keys in (
        (["pack", "--study", "test", "--out", str(tmp_path / "c.tar.gz")], {"path", "cells", "left_out", "stand_ins"}),
        (["import", *map(str, parcel(plan, tmp_path / "there", tmp_path / "out")), "--results", str(tmp_path / "r")],
         {"taken", "tables", "reports"}),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            cli.main(["campaign", *arguments, "--config", str(config.folder), "--json"])
        assert ended.value.code == 0 and set(json.loads(capsys.readouterr().out)) == keys


def test_an_import_makes_tables_of_ordinary_records(config, plan, tmp_path):
    files = parcel(plan, tmp_path / "there", tmp_path / "out", version="0.26.0")
    said = imported(config, tmp_path, files)
    folder = tmp_path / "results/imported/card-a-2026-03-01"
    assert "4 new records" in said and "vllm 0.26.0 on Card A" in said and "dummy weights" in said and "4 ok" in said
    frame = parquet.read(folder / "tables/test", "measurements")
    assert set(frame["engine_version"]) == {"0.26.0"}, "the version that ran, not the planned one"
    assert set(frame["weights"]) == {"dummy"} and len(frame) == 4
    before = snapshot(folder)
    assert "0 new records, 0 replacing worse ones, 4 already there" in imported(config, tmp_path, files)
    assert snapshot(folder) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"study": "other"}, "study other, which the file does not name"),
        ({"cell": "b1-000000"}, "no cell of study test here"),
        ({"workload": {"batch": 99}}, r"workload\.batch is 99, in the plan it is 1"),
        ({"protocol": {"repeats": 1}}, r"protocol\.repeats is 1"),
        ({"engine_config": {"dtype": "float32"}}, r"engine_config\.dtype is 'float32'"),
        ({"model": {"revision": "main"}}, r"model\.revision is 'main'"),
        ({"engine_version": {"kind": "transformers"}}, "of engine transformers, in the plan it is vllm"),
    ],
)
def test_a_record_that_is_not_the_plans_is_refused(plan, tmp_path, change, said):
    key = next(k for k in plan["cells"] if k.startswith("tiny-mixtral") and "/b1." in k)
    made = record(plan, key)
    for part, value in change.items():
        made[part] = made[part] | value if isinstance(value, dict) else value
    records.store(tmp_path / "there", made)
    files = parcels.write(tmp_path / "out", "results", tmp_path / "there", tmp_path, ABOUT)
    with pytest.raises(UserError, match=said) as error:
        taken(plan, tmp_path, files)
    assert "\n" not in str(error.value) and not (tmp_path / "results").exists(), "nothing of it is taken"


def test_a_folder_is_of_one_device_and_empty_results_are_refused(plan, tmp_path):
    files = parcel(plan, tmp_path / "a", tmp_path / "out-a")
    others = parcel(plan, tmp_path / "b", tmp_path / "out-b", device="Card B")
    taken(plan, tmp_path, files, name="mine")
    with pytest.raises(UserError, match=r"Card A .*Card B.*--name"):
        taken(plan, tmp_path, others, name="mine")
    nothing = parcels.write(tmp_path / "out-c", "results", tmp_path / "c", tmp_path, ABOUT)
    with pytest.raises(UserError, match="nothing was measured"):
        taken(plan, tmp_path, nothing)
    with pytest.raises(UserError, match="no such file"):
        taken(plan, tmp_path, [tmp_path / "gone.zip"])


def test_canary_runs_of_an_unfinished_job_count(plan, tmp_path):
    results = measured(plan, tmp_path / "results")
    key = next(iter(plan["cells"]))
    engine, _, cell = key.partition("/")
    own = [run["metrics"]["e2e_s"] for run in records.current(results, engine, cell)[0]["repeats"]]
    runs = [{"engine": engine, "cell": cell, "session": None, "metrics": {"e2e_s": f * own[0]}} for f in (1.0, 1.5)]
    assert gather.canaries(plan, results) == ({}, {})
    manifest.add_canary(results, engine, runs)
    manifest.add_canary(results, engine, runs)
    assert manifest.canary(results, engine) == runs
    drift, gaps = gather.canaries(plan, results)
    assert 0.4 < drift[engine] < 0.6 and set(gaps) == {(engine, cell)}
    manifest.canary_path(results, engine).write_bytes(canonical_bytes(runs)[:-9])
    assert manifest.canary(results, engine) == []


def test_other_device_names_become_folder_names(plan, tmp_path):
    (made,) = parcel(plan, tmp_path / "a", tmp_path / "out", device="NVIDIA H100 80GB HBM3")
    assert bring_home._name(parcels.read(made)) == "nvidia-h100-80gb-hbm3-2026-03-01"


# ---------------------------------------------------------------------------------- the engine's archives


def fatbin(*entries):
    """A fatbin as a CUDA library holds it: (kind, architecture, payload) each."""
    body = b""
    for kind, architecture, payload in entries:
        head = (
            struct.pack("<HHIQ", kind, 0x101, 64, len(payload))
            + bytes(12)
            + struct.pack("<I", architecture)
            + bytes(32)
        )
        body += head + payload
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def test_only_the_code_of_other_gpus_is_zeroed():
    cubins = [(2, 80, b"a" * 40), (2, 90, b"b" * 40), (1, 90, b"p" * 24), (2, 100, b"c" * 40)]
    only_ptx = [(1, 75, b"q" * 24), (1, 90, b"r" * 24), (1, 100, b"s" * 24), (2, 80, b"d" * 40)]
    before = b"code " + fatbin(*cubins) + b"between" + fatbin(*only_ptx) + engine_archives._FATBIN + b"no fatbin"
    data = bytearray(before)
    assert engine_archives.slim(data) == 40 + 24 + 40 + 24 + 24 + 40 and len(data) == len(before)
    kept = [letter for letter in b"abpcqrsd" if bytes([letter]) * 24 in data]
    assert bytes(kept) == b"br" and data.startswith(b"code ") and data.endswith(b"no fatbin") and b"between" in data


@pytest.mark.parametrize(("lacking", "said"), [("pip", "has no pip"), ("xz", "xz is not on PATH")])
def test_what_packing_an_engine_needs_is_said_in_one_line(tmp_path, monkeypatch, capsys, lacking, said):
    """The project's own environments have no pip."""
    monkeypatch.setattr(sys, "argv", ["engine_archives", str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == lacking else sys)
    monkeypatch.setattr("shutil.which", lambda name: None if name == lacking else name)
    with pytest.raises(SystemExit) as end:
        engine_archives.main()
    assert end.value.code == 2 and said in capsys.readouterr().err and not list(tmp_path.iterdir())
