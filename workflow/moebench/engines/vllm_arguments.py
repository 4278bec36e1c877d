"""The arguments and kernel switches with which vLLM is started for an engine configuration of the plan."""

from __future__ import annotations

import json
import os
from pathlib import Path

from moebench.architectures.hf_config import shape_overrides
from moebench.architectures.quantization_schemes import made_while_loading
from moebench.engines import vllm_flashinfer, vllm_images, vllm_kernels, vllm_routing, vllm_unfused
from moebench.formats import Knobs
from moebench.formats.plan import EngineConfig, EngineKnobsDict

_ARCHITECTURE_FIXES = {"phimoe": {"architectures": ["PhiMoEForCausalLM"]}}
"""transformers 5 saves PhiMoE under a class name that vLLM does not register."""


def arguments(spec: EngineConfig) -> Knobs:
    """Arguments of ``vllm.LLM`` for an engine configuration of the plan.

    Does not check what vLLM supports: vLLM raises its own errors when it loads.
    """
    config, model = spec["config"], spec["model"]
    architecture = model["architecture"]
    overrides = dict(_ARCHITECTURE_FIXES.get(architecture["family"], {}))
    overrides |= shape_overrides(model, config, config["top_k"])
    given = {
        "model": model["path"],
        "load_format": "dummy" if config["weights"] == "dummy" else "auto",
        "skip_tokenizer_init": True,
        "trust_remote_code": True if model.get("trust_remote_code") else None,
        "dtype": config["dtype"],
        "quantization": while_loading(spec),
        "kv_cache_dtype": config["kv_cache_dtype"],
        "hf_overrides": overrides,
        "enforce_eager": config["eager"],
        "max_model_len": config["max_model_len"],
        "max_num_seqs": config["max_num_seqs"],
        "max_num_batched_tokens": config["max_num_batched_tokens"],
        "tensor_parallel_size": config["tp"],
        "pipeline_parallel_size": config["pp"],
        "data_parallel_size": config["dp"],
        "enable_expert_parallel": config["ep"],
        "gpu_memory_utilization": spec["memory_fraction"],
        "kv_cache_memory_bytes": config["kv_cache_mb"] * 10**6 if config["kv_cache_mb"] else None,
        "enable_prefix_caching": config.get("prefix_caching", False),
        "disable_log_stats": False,
        "worker_extension_cls": "moebench.engines.vllm_moe.MoEExtension",
        "seed": 0,
        "jit_monitor_verbose": True,  # else a kernel's second compilation is not logged (engines/compiling.py)
        "speculative_config": speculation(spec),
    }
    given |= serving(config) | vllm_images.arguments(model) | vllm_flashinfer.arguments(spec)
    return {k: v for k, v in given.items() if v is not None}


def serving(config: EngineKnobsDict) -> Knobs:
    """Arguments that matter only for serving many users; None: the engine chooses."""
    balance = {"num_redundant_experts": config.get("redundant_experts") or None}
    if steps := config.get("eplb_steps"):
        balance |= {"window_size": steps, "step_interval": steps}
    balance = {k: v for k, v in balance.items() if v}
    sizes = config.get("graph_sizes")
    return {
        "enable_chunked_prefill": config.get("chunked_prefill"),
        "attention_backend": config.get("attention_kernel"),
        "moe_backend": config.get("fused_kernel"),
        "all2all_backend": config.get("all_to_all"),
        "enable_eplb": config.get("eplb") or None,
        "eplb_config": balance or None,
        "cudagraph_capture_sizes": [int(size) for size in sizes.split()] if sizes else None,
    }


def while_loading(spec: EngineConfig) -> str | None:
    """How vLLM quantizes weights while loading them; None: as in the checkpoint, or not at all."""
    scheme: str = spec["config"]["quantization"]
    file = Path(spec["model"]["path"]) / "config.json"
    if not made_while_loading(scheme, json.loads(file.read_text(encoding="utf-8"))):
        return None
    return _WHILE_LOADING.get(scheme, scheme)


_WHILE_LOADING = {"fp8": "fp8_per_tensor"}
"""vLLM's names of schemes, where they differ."""


def speculation(spec: EngineConfig) -> Knobs | None:
    """vLLM's speculative configuration: a draft model of the same vocabulary, a method without one, or None."""
    config, draft = spec["config"], spec["draft"]
    method = config.get("speculation") or ("draft_model" if draft else None)
    if method is None:
        return None
    drafted = {"model": draft["path"], "draft_tensor_parallel_size": config["tp"]} if draft else {}
    return {"method": method, "num_speculative_tokens": config["draft_tokens"], **drafted}


def switches(spec: EngineConfig) -> dict[str, str]:
    """Environment variables that select the kernels of an engine configuration."""
    return {
        vllm_unfused.SWITCH: spec["config"]["expert_kernel"],
        vllm_kernels.SWITCH: spec["config"]["kernel_config"],
        **vllm_routing.environment(spec["config"]),
        **vllm_flashinfer.environment(spec),
    }


def switch(spec: EngineConfig) -> None:
    """Set these variables for an engine configuration, in this process and its children."""
    os.environ.update(switches(spec))
    vllm_unfused.install()
    vllm_kernels.install()
    vllm_flashinfer.install()
    vllm_routing.install()
