"""vLLM, offline, through its ``LLM`` class (0.32.0; CPU facts in docs/facts.md)."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from moebench.engines import vllm_images, vllm_nodes, vllm_resolved, vllm_routing, vllm_startup
from moebench.engines.failures import Refused
from moebench.engines.imports import no_collection
from moebench.engines.protocol import Images, Routed
from moebench.engines.trace import encode
from moebench.engines.variables import CORE, core_is_within
from moebench.engines.vllm_arguments import arguments, switch
from moebench.formats import Knobs
from moebench.formats.plan import EngineConfig, EngineKnobsDict
from moebench.formats.record import LoadFacts, Trace

COUNTERS = {
    "vllm:num_preemptions": "preemptions",
    "vllm:prefix_cache_hits": "prefix_cache_hits",
    "vllm:spec_decode_num_drafts": "drafts",
    "vllm:spec_decode_num_draft_tokens": "draft_tokens",
    "vllm:spec_decode_num_accepted_tokens": "accepted_tokens",
    "vllm:spec_decode_num_accepted_tokens_per_pos": "accepted_at",
}
"""vLLM's counters and our names; the last is a vector over positions in the draft."""


_NOT_ON_A_CPU: tuple[tuple[Callable[[EngineKnobsDict], bool], str, str], ...] = (
    (
        lambda c: c["ep"] and not c.get("eplb"),
        "expert parallelism",
        "its experts kernel reads beyond its memory (segmentation fault)",
    ),
    (lambda c: c["pp"] > 1, "pipeline parallelism", "`assert self.intermediate_tensors is not None` at the first step"),
    (lambda c: c["dp"] > 1, "data parallelism", "NotImplementedError in all_gatherv, at the first step with experts"),
    (lambda c: c["kernel_config"] == "default", "kernel_config='default'", "its experts kernel has no tile sizes"),
)
"""What was tried and failed in a way that a run cannot survive or tell (docs/facts.md), and what was seen.  With EPLB,
vLLM says itself that a CPU has none."""


_LIVE = ("routing", "gate_share", "load_cap")
"""Knobs that a compiled router on a CPU would not heed: there the whole layer is compiled in."""

_UNKNOWN = {"molmoe": "its MolmoForCausalLM reads no experts"}
"""Families of the registry that it does not have, and why."""


_HARMLESS = {"ep": False, "pp": 1, "dp": 1, "kernel_config": "tuned", "expert_kernel": "fused"}
"""Values that are never refused: then vLLM, which takes long to import, need not be asked."""


def steered(config: EngineKnobsDict) -> bool:
    """Whether the routers' choices are overridden."""
    return any(config.get(knob) for knob in _LIVE)


def unknown(model: Mapping[str, Any]) -> str | None:
    """Why vLLM does not support a model's architecture; None if it does."""
    return _UNKNOWN.get(model["architecture"]["family"])


def kv_cache_tokens(cache: Mapping[str, Any], dp: int) -> int | None:
    """Capacity of the KV caches of all data-parallel ranks, tokens, from vLLM's cache configuration; None: not
    reported.

    vLLM's own number is for one rank, and is also right if layers cache in several groups (Llama 4).  Its number of
    blocks is already the sum over the ranks.
    """
    sizes = {
        k: int(cache[k]) for k in ("kv_cache_size_tokens", "num_gpu_blocks", "block_size") if _number(cache.get(k))
    }
    if "kv_cache_size_tokens" in sizes:
        return sizes["kv_cache_size_tokens"] * dp
    return sizes["num_gpu_blocks"] * sizes["block_size"] if {"num_gpu_blocks", "block_size"} <= sizes.keys() else None


def _number(value: Any) -> bool:
    return value not in (None, "None")  # a server's metrics are text


class VllmEngine:
    """An engine configuration in this process (``engines.protocol.Engine``)."""

    def __init__(self, spec: EngineConfig):
        self.spec, self.config, self.model = spec, spec["config"], spec["model"]
        self.llm: Any = None
        self.other_nodes = vllm_nodes.OtherNodes(spec)
        self._ids = itertools.count()

    def load(self) -> LoadFacts:
        """Load the model.  Raises any exception of the engine."""
        with no_collection():
            self.refuse()
            from vllm import LLM  # noqa: F401 - most of what it imports
        vllm_startup.set_imports_aside()
        switch(self.spec)
        if vllm_startup.on_a_cpu():  # where a worker loads engines with and without a process of their own
            os.environ[CORE] = "0" if core_is_within(self.spec) else "1"
        started = time.perf_counter()
        across = self.other_nodes.start() if self.spec["nodes"] > 1 else {}
        with vllm_startup.quick_start():
            self.llm = self.start(arguments(self.spec) | across)
        load_s = time.perf_counter() - started
        config = self.llm.llm_engine.vllm_config
        cache = config.cache_config
        if not vllm_startup.on_a_cpu():
            self.llm.collective_rpc("moe_watch_compiling")
        facts: LoadFacts = {
            "load_s": load_s,
            "kv_cache_tokens": kv_cache_tokens(vars(cache), self.config["dp"]),
            "kv_block_size": cache.block_size,
            "eager": bool(config.model_config.enforce_eager),
            "capture_sizes": list(config.compilation_config.cudagraph_capture_sizes or []),
            "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
            "chunked_prefill": bool(config.scheduler_config.enable_chunked_prefill),
            "async_scheduling": bool(config.scheduler_config.async_scheduling),
            "v2_model_runner": bool(getattr(config, "use_v2_model_runner", False)),
            "resolved_config": self.resolved_config(),
            "fuse_allreduce_rms": bool(config.compilation_config.pass_config.fuse_allreduce_rms),
            "backends": self._rpc("moe_backends"),
        }
        resolved: LoadFacts = self._rpc("moe_resolved")
        if across:
            facts["ranks"] = self.llm.collective_rpc("moe_rank")
        facts["serving"] = vllm_resolved.serving(config)
        self.refuse_other(facts)
        return facts | resolved

    def refuse_other(self, facts: LoadFacts) -> None:
        """Raise NotImplementedError if vLLM silently, or with only a warning, chose something other than requested."""
        taken = facts["serving"] | {
            "attention_kernel": ", ".join(facts["backends"]["attention"]).partition(" ")[0],
            "graph_sizes": " ".join(map(str, facts["capture_sizes"])),
        }
        for knob, value in taken.items():
            asked = self.config.get(knob)
            if asked is not None and asked != value:
                got = f"{value!r}" if value else "none"
                raise NotImplementedError(f"{knob} {asked!r} is not supported here: vLLM took {got}")

    def start(self, arguments: Knobs) -> Any:
        """The loaded engine.  Raises any exception of the engine."""
        from vllm import LLM

        return LLM(**arguments)

    def refuse(self) -> None:
        """Raise Refused for a configuration that would run as something other than its name says."""
        if why := unknown(self.model):
            raise Refused(f"{self.model['title']} is not supported by vLLM: {why}")
        config: Mapping[str, object] = self.config
        if all(config[knob] == value for knob, value in _HARMLESS.items()) and not steered(self.config):
            return
        import vllm
        from vllm.platforms import current_platform

        if current_platform.is_cpu():
            if steered(self.config) and not self.config["eager"]:
                raise Refused(f"{' and '.join(_LIVE)} are not supported on a CPU without eager: true")
            for asked, what, seen in _NOT_ON_A_CPU:
                if asked(self.config):
                    raise Refused(f"{what} is not supported by vLLM {vllm.__version__} on a CPU: {seen}")
        if self.config["expert_kernel"] == "unfused" and not self.config["eager"]:
            raise Refused("unfused experts read counts from the device, which a CUDA graph cannot do: set eager")

    def resolved_config(self) -> Knobs:
        """The text model's configuration as the engine resolved it, scalars only."""
        resolved = self.llm.llm_engine.vllm_config.model_config.hf_text_config.to_dict()
        return {k: v for k, v in sorted(resolved.items()) if v is None or isinstance(v, (int, float, str, bool))}

    def _rpc(self, method: str, *args: Any) -> Any:
        return self.llm.collective_rpc(method, args=args)[0]

    def set_top_k(self, top_k: int) -> None:
        """Set top-k live.  Raises NotImplementedError unless the engine is eager."""
        if not self.config["eager"]:
            raise NotImplementedError("top-k cannot be set live: a compiled router ignores it; set eager or reload")
        self._rpc("moe_set_top_k", top_k)

    def _sampling(self, output_tokens: int) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=0, max_tokens=output_tokens, min_tokens=output_tokens, ignore_eos=True, detokenize=False
        )

    def inputs(self, prompts: list[list[int]], images: Images) -> list[Any]:
        """Prompts in vLLM's input format."""
        from vllm.inputs import TokensPrompt

        if images:
            return vllm_images.Placeholders(self.llm).inputs(prompts, images)
        return [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts]

    def trace(self, prompts: list[list[int]], output_tokens: int, images: Images = ()) -> Trace:
        """Run a batch step by step, recording the end of every step."""
        from vllm.sampling_params import RequestOutputKind

        engine = self.llm.llm_engine
        sampling = self._sampling(output_tokens)
        sampling.output_kind = RequestOutputKind.DELTA
        names = [f"r{next(self._ids)}" for _ in prompts]
        steps: dict[str, list[int]] = {name: [] for name in names}
        tokens: dict[str, list[int]] = {name: [] for name in names}
        seen: dict[str, int] = {}
        inputs = self.inputs(prompts, images)
        ends: list[float] = []
        clock = time.perf_counter
        gc.collect()
        start = clock()
        for name, prompt in zip(names, inputs, strict=True):
            engine.add_request(name, prompt, sampling)
        prepared = clock() - start
        while engine.has_unfinished_requests():
            outputs = engine.step()
            ends.append(clock() - start)
            for output in outputs:
                received = len(output.outputs[0].token_ids)
                if received:
                    name = output.request_id.partition("-")[0]
                    seen[name] = len(output.prompt_token_ids)
                    steps[name].append(len(ends) - 1)
                    tokens[name].append(received)
        for name in names:
            if sum(tokens[name]) != output_tokens:
                raise RuntimeError(f"a request gave {sum(tokens[name])} tokens instead of {output_tokens}")
        run: Trace = {"step_end_s": ends, "requests": [encode(steps[name], tokens[name]) for name in names]}
        if images:
            run |= {
                "image_tokens": vllm_images.image_tokens(prompts, [seen[name] for name in names]),
                "preprocess_s": prepared,
            }
        return run

    def timed(self, prompts: list[list[int]], output_tokens: int, images: Images = ()) -> float:
        """Run a batch through ``LLM.generate``; return its wall time, s."""
        sampling = self._sampling(output_tokens)
        inputs = self.inputs(prompts, images)
        gc.collect()
        start = time.perf_counter()
        outputs = self.llm.generate(inputs, sampling, use_tqdm=False)
        elapsed = time.perf_counter() - start
        for output in outputs:
            if len(output.outputs[0].token_ids) != output_tokens:
                got = len(output.outputs[0].token_ids)
                raise RuntimeError(f"a request gave {got} tokens instead of {output_tokens}")
        return elapsed

    def capture(self, on: bool) -> bool:
        """Count routed experts.  A compiled router does not call the hook, so only in eager mode."""
        return bool(self.config["eager"]) and self._rpc("moe_capture", on) > 0

    def captured(self) -> dict[int, Routed]:
        """Counts of the first rank that has the layer: with TP and EP each rank sees every token's routing; with PP
        each rank has its own layers.
        """
        found: dict[int, Routed] = {}
        for rank in self.llm.collective_rpc("moe_captured"):
            found = rank | found
        return found

    def counters(self) -> dict[str, float]:
        """Preemptions and prefix-cache hits since the engine started; with speculation also drafts and tokens, with a
        budget also the experts used."""
        found = dict.fromkeys(("preemptions", "prefix_cache_hits"), 0.0)
        if vllm_routing.budgeted(self.config):
            found |= self._rpc("moe_used")
        for metric in self.llm.get_metrics():
            name = COUNTERS.get(metric.name)
            if name is None:
                continue
            for position, value in enumerate(getattr(metric, "values", [])):
                key = f"{name}_{position}"
                found[key] = found.get(key, 0.0) + value
            if hasattr(metric, "value"):
                found[name] = found.get(name, 0.0) + metric.value
        return found

    def close(self) -> None:
        """Shut the engine down and free its resources."""
        from vllm.distributed import cleanup_dist_env_and_memory

        with vllm_startup.one_collection():
            if self.llm is not None:
                with contextlib.suppress(Exception):
                    self.llm.llm_engine.engine_core.shutdown(timeout=vllm_startup.shutdown_s())
            self.llm = None
            self.other_nodes.close()
            cleanup_dist_env_and_memory()
