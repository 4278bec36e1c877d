"""Run by test_dummy_routing.py in the engine's environment: distinct experts per decode step with dummy weights.

Usage: python dummy_routing.py SPEC OUT.  Mixtral's width, with few and narrow layers.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from moebench.engines.vllm import VllmEngine

BATCH, INPUT, OUTPUT = 16, 32, 16
SIZES = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_size": 4096, "head_dim": 128,
         "num_attention_heads": 4, "num_key_value_heads": 1, "num_hidden_layers": 3, "vocab_size": 2048,
         "intermediate_size": 64, "num_local_experts": 8, "num_experts_per_tok": 2, "torch_dtype": "bfloat16",
         "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "hidden_act": "silu"}  # fmt: skip


def main(spec_file: str, out: str) -> None:
    spec = json.loads(Path(spec_file).read_text())
    (Path(spec["model"]["path"]) / "config.json").write_text(json.dumps(SIZES))
    engine = VllmEngine(spec)
    engine.load()
    draw = random.Random(1)
    distinct = [[draw.randrange(SIZES["vocab_size"]) for _ in range(INPUT)] for _ in range(BATCH)]
    found = {}
    for kind, prompts in (("distinct", distinct), ("identical", [distinct[0]] * BATCH)):
        engine.capture(True)
        engine.trace(prompts, OUTPUT)
        layers = engine.captured()
        engine.capture(False)
        found[kind] = [[seen for tokens, seen in layers[n]["steps"] if tokens == BATCH] for n in sorted(layers)]
    Path(out).write_text(json.dumps(found))
    engine.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
