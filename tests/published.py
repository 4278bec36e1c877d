"""The ``config.json`` of models of today, as far as sizes go, entered from memory and from transformers' configuration
classes; that they add up to the published parameters is what the tests check."""

from __future__ import annotations

from typing import Any


def _alternate(layers: int, every: int, other: str, full: str = "full_attention") -> list[str]:
    return [other if (n + 1) % every else full for n in range(layers)]


def _oss(layers: int, experts: int) -> dict[str, Any]:
    return {
        "architectures": ["GptOssForCausalLM"], "attention_bias": True, "experts_per_token": 4, "head_dim": 64,
        "hidden_size": 2880, "initial_context_length": 4096, "intermediate_size": 2880,
        "layer_types": _alternate(layers, 2, "sliding_attention"), "max_position_embeddings": 131072,
        "model_type": "gpt_oss", "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": layers,
        "num_key_value_heads": 8, "num_local_experts": experts, "sliding_window": 128, "swiglu_limit": 7.0,
        "quantization_config": {"quant_method": "mxfp4"}, "tie_word_embeddings": False, "vocab_size": 201088,
    }  # fmt: skip


def _granite(hidden: int, heads: int, kv_heads: int, mamba_heads: int, experts: int, top_k: int, ffn: int) -> Any:
    kinds = ["attention" if n in (5, 15, 25, 35) else "mamba" for n in range(40)]
    return {
        "architectures": ["GraniteMoeHybridForCausalLM"], "attention_bias": False, "attention_multiplier": 0.0078125,
        "embedding_multiplier": 12, "hidden_size": hidden, "intermediate_size": ffn, "layer_types": kinds,
        "mamba_chunk_size": 256, "mamba_conv_bias": True, "mamba_d_conv": 4, "mamba_d_head": 64, "mamba_d_state": 128,
        "mamba_expand": 2, "mamba_n_groups": 1, "mamba_n_heads": mamba_heads, "mamba_proj_bias": False,
        "max_position_embeddings": 131072, "model_type": "granitemoehybrid", "num_attention_heads": heads,
        "num_experts_per_tok": top_k, "num_hidden_layers": 40, "num_key_value_heads": kv_heads,
        "num_local_experts": experts, "position_embedding_type": "nope", "shared_intermediate_size": 2 * ffn,
        "tie_word_embeddings": True, "vocab_size": 100352,
    }  # fmt: skip


def _mla(model_type: str, heads: int, experts: int, dense: int, vocabulary: int, positions: int, **more: Any) -> Any:
    return {
        "first_k_dense_replace": dense, "hidden_size": 7168, "intermediate_size": 18432, "kv_lora_rank": 512,
        "max_position_embeddings": positions, "model_type": model_type, "moe_intermediate_size": 2048,
        "moe_layer_freq": 1, "n_routed_experts": experts, "n_shared_experts": 1, "num_attention_heads": heads,
        "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": heads, "num_nextn_predict_layers": 1,
        "attention_bias": False, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
        "tie_word_embeddings": False, "v_head_dim": 128, "vocab_size": vocabulary, **more,
    }  # fmt: skip


_LINEAR = {
    "attention_bias": False, "full_attention_interval": 4, "head_dim": 256, "hidden_size": 2048,
    "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
    "linear_value_head_dim": 128, "max_position_embeddings": 262144, "mlp_only_layers": [],
    "moe_intermediate_size": 512, "num_attention_heads": 16, "num_key_value_heads": 2,
    "shared_expert_intermediate_size": 512, "tie_word_embeddings": False,
}  # fmt: skip
_LLAMA4 = {
    "attention_chunk_size": 8192, "head_dim": 128, "hidden_size": 5120, "intermediate_size": 8192,
    "intermediate_size_mlp": 16384, "model_type": "llama4_text", "no_rope_layers": [], "num_attention_heads": 40,
    "num_experts_per_tok": 1, "num_hidden_layers": 48, "num_key_value_heads": 8, "tie_word_embeddings": False,
    "use_qk_norm": True, "vocab_size": 202048,
}  # fmt: skip

CONFIGS: dict[str, dict[str, Any]] = {
    "gpt-oss-20b": _oss(24, 32),
    "gpt-oss-120b": _oss(36, 128),
    "glm-4.5-air": {
        "attention_bias": True, "first_k_dense_replace": 1, "head_dim": 128, "hidden_size": 4096,
        "intermediate_size": 10944, "max_position_embeddings": 131072, "model_type": "glm4_moe",
        "moe_intermediate_size": 1408, "n_group": 1, "n_routed_experts": 128, "n_shared_experts": 1,
        "num_attention_heads": 96, "num_experts_per_tok": 8, "num_hidden_layers": 46, "num_key_value_heads": 8,
        "num_nextn_predict_layers": 1, "tie_word_embeddings": False, "use_qk_norm": False, "vocab_size": 151552,
    },
    "qwen3-next-80b-a3b": _LINEAR | {
        "decoder_sparse_step": 1, "intermediate_size": 5120, "model_type": "qwen3_next", "num_experts": 512,
        "num_experts_per_tok": 10, "num_hidden_layers": 48, "vocab_size": 151936,
    },
    "qwen3.5-35b-a3b": {
        "model_type": "qwen3_5_moe", "tie_word_embeddings": False, "vision_config": {"depth": 27, "hidden_size": 1152},
        "text_config": _LINEAR | {
            "attn_output_gate": True, "layer_types": _alternate(40, 4, "linear_attention"),
            "mamba_ssm_dtype": "float32", "model_type": "qwen3_5_moe_text", "num_experts": 256,
            "num_experts_per_tok": 8, "num_hidden_layers": 40, "vocab_size": 248320,
        },
    },
    "granite-4.0-h-small": _granite(4096, 32, 8, 128, 72, 10, 768),
    "granite-4.0-h-tiny": _granite(1536, 12, 4, 48, 64, 6, 512),
    "minimax-m2": {
        "attn_type_list": [1] * 62, "head_dim": 128, "hidden_size": 3072, "intermediate_size": 1536,
        "max_position_embeddings": 196608, "model_type": "minimax_m2", "num_attention_heads": 48,
        "num_experts_per_tok": 8, "num_hidden_layers": 62, "num_key_value_heads": 8, "num_local_experts": 256,
        "shared_intermediate_size": 0, "tie_word_embeddings": False, "use_qk_norm": True, "vocab_size": 200064,
    },
    "ernie-4.5-21b-a3b": {
        "hidden_size": 2560, "intermediate_size": 12288, "max_position_embeddings": 131072,
        "model_type": "ernie4_5_moe", "moe_intermediate_size": 1536, "moe_k": 6, "moe_layer_end_index": 27,
        "moe_layer_interval": 1, "moe_layer_start_index": 1, "moe_num_experts": 64, "moe_num_shared_experts": 2,
        "num_attention_heads": 20, "num_hidden_layers": 28, "num_key_value_heads": 4, "tie_word_embeddings": True,
        "use_bias": False, "vocab_size": 103424,
    },
    "ernie-4.5-300b-a47b": {
        "hidden_size": 8192, "intermediate_size": 28672, "max_position_embeddings": 131072,
        "model_type": "ernie4_5_moe", "moe_intermediate_size": 3584, "moe_k": 8, "moe_layer_end_index": 53,
        "moe_layer_interval": 1, "moe_layer_start_index": 3, "moe_num_experts": 64, "moe_num_shared_experts": 0,
        "num_attention_heads": 64, "num_hidden_layers": 54, "num_key_value_heads": 8, "tie_word_embeddings": False,
        "use_bias": False, "vocab_size": 103424,
    },
    "hunyuan-a13b": {
        "attention_bias": False, "attention_head_dim": 128, "hidden_size": 4096, "intermediate_size": 3072,
        "max_position_embeddings": 32768, "model_type": "hunyuan_v1_moe", "moe_intermediate_size": [3072] * 32,
        "moe_topk": [8] * 32, "num_attention_heads": 32, "num_experts": 64, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "num_shared_expert": [1] * 32, "tie_word_embeddings": True, "use_qk_norm": True,
        "use_cla": False, "vocab_size": 128167,
    },
    "kimi-k2": _mla("kimi_k2", 64, 384, 1, 163840, 131072),
    "deepseek-v3": _mla("deepseek_v3", 128, 256, 3, 129280, 163840),
    "deepseek-v3.2": _mla(
        "deepseek_v32", 128, 256, 3, 129280, 163840, index_head_dim=128, index_n_heads=64, index_topk=2048
    ),
    "llama-4-scout-17b-16e": {
        "model_type": "llama4", "vision_config": {"hidden_size": 1408},
        "text_config": _LLAMA4 | {
            "interleave_moe_layer_step": 1, "max_position_embeddings": 10485760, "num_local_experts": 16,
        },
    },
    "llama-4-maverick-17b-128e": {
        "model_type": "llama4", "vision_config": {"hidden_size": 1408},
        "text_config": _LLAMA4 | {
            "interleave_moe_layer_step": 2, "max_position_embeddings": 1048576, "num_local_experts": 128,
        },
    },
    "qwen3-30b-a3b": {
        "attention_bias": False, "decoder_sparse_step": 1, "head_dim": 128, "hidden_size": 2048,
        "intermediate_size": 6144, "max_position_embeddings": 40960, "max_window_layers": 48, "mlp_only_layers": [],
        "model_type": "qwen3_moe", "moe_intermediate_size": 768, "num_attention_heads": 32, "num_experts": 128,
        "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4, "sliding_window": None,
        "tie_word_embeddings": False, "use_sliding_window": False, "vocab_size": 151936,
    },
    "qwen1.5-moe-a2.7b": {
        "decoder_sparse_step": 1, "hidden_size": 2048, "intermediate_size": 5632, "max_position_embeddings": 8192,
        "max_window_layers": 21, "model_type": "qwen2_moe", "moe_intermediate_size": 1408, "num_attention_heads": 16,
        "num_experts": 60, "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 16,
        "shared_expert_intermediate_size": 5632, "sliding_window": 32768, "tie_word_embeddings": False,
        "use_sliding_window": False, "vocab_size": 151936,
    },
    "phi-3.5-moe": {
        "attention_bias": True, "hidden_size": 4096, "intermediate_size": 6400, "lm_head_bias": True,
        "max_position_embeddings": 131072, "model_type": "phimoe", "num_attention_heads": 32, "num_experts_per_tok": 2,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 16, "sliding_window": 131072,
        "tie_word_embeddings": False, "vocab_size": 32064,
    },
    "mixtral-8x7b": {
        "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mixtral",
        "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "num_local_experts": 8, "sliding_window": None, "tie_word_embeddings": False, "vocab_size": 32000,
    },
}  # fmt: skip
