"""Runs in vLLM's environment: what its own checks say of shapes and layouts (``test_vllm_refusals.py``)."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import torch
from vllm import distributed
from vllm.config.model import ModelConfig
from vllm.distributed.utils import verify_group_size_divides_partition
from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
    compressed_tensors_moe_wna16 as wna16,
)
from vllm.model_executor.layers.quantization.utils import fp8_utils


def said(check, *arguments) -> str | None:
    """The message of a refusal; None: nothing is refused."""
    try:
        check(*arguments)
    except (ValueError, AssertionError) as error:
        return str(error) or type(error).__name__
    return None


def heads(count: int, tp: int) -> str | None:
    parallel = SimpleNamespace(
        enable_hc_sp=False, tensor_parallel_size=tp, enable_expert_parallel=False, pipeline_parallel_size=1,
        decode_context_parallel_size=1,
    )  # fmt: skip
    model = SimpleNamespace(
        model_arch_config=SimpleNamespace(total_num_attention_heads=count), multimodal_config=None, registry=None,
    )  # fmt: skip
    return said(ModelConfig.verify_with_parallel_config, model, parallel)


def experts(width: int, parts: int) -> str | None:
    """The width of an expert over so many GPUs."""
    config = MagicMock(
        moe_parallel_config=MagicMock(tp_size=parts), intermediate_size=width, dp_size=1, max_num_tokens=1,
        use_mori_kernels=False, is_act_and_mul=True, rocm_aiter_fmoe_enabled=False,
    )  # fmt: skip
    return said(FusedMoEConfig.__post_init__, config)


def grouped(width: int, parts: int, group: int) -> str | None:
    """4-bit experts of a width over so many GPUs."""
    (method,) = (m for n, m in vars(wna16).items() if n.endswith("Method") and "create_weights" in vars(m))
    made = SimpleNamespace(packed_factor=8, strategy="group", group_size=group, symmetric=True, actorder=None,
                           moe=SimpleNamespace(has_bias=False, is_act_and_mul=True))  # fmt: skip
    made.get_weight_shape = lambda *a, **k: method.get_weight_shape(made, *a, **k)
    return said(method.create_weights, made, torch.nn.Module(), 1, 2048, width // parts, torch.bfloat16)


def main(out: str) -> None:
    found = {
        "heads": {tp: heads(32, tp) for tp in (2, 3, 6)},
        "experts": {parts: experts(768, parts) for parts in (8, 1024)},
        "grouped": {key: grouped(1408, *key) for key in ((4, 32), (4, 64), (2, 64), (2, 128))},
        "dense": {parts: said(verify_group_size_divides_partition, 10944 // parts, 32) for parts in (2, 4)},
    }
    distributed.get_tensor_model_parallel_world_size = lambda: 2
    found["blocks"] = {width: said(fp8_utils.validate_fp8_block_shape_moe, width, [128, 128]) for width in (704, 896)}
    with open(out, "w") as file:
        json.dump({name: {str(k): v for k, v in told.items()} for name, told in found.items()}, file)


if __name__ == "__main__":
    main(sys.argv[1])
