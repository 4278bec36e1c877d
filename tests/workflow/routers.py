"""Run by test_activation.py in the engine's environment: how often transformers' routers choose each expert.

Usage: python routers.py FOLDER PROMPTS OUTPUT_TOKENS OUT.  ``PROMPTS`` is a JSON list of lists of token ids.  Each
prompt is continued greedily on its own, without a cache, in float32; then the router's logits of all its tokens but the
last are ranked.  Writes counts per layer and expert, of the prompts' tokens and of the generated ones apart.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


def main(folder: str, prompts_file: str, output_tokens: str, out: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    top_k, counts = model.config.num_experts_per_tok, {"prefill": None, "decode": None}
    for prompt in json.loads(Path(prompts_file).read_text()):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            for _ in range(int(output_tokens)):
                ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
            logits = torch.stack(model(ids[:, :-1], output_router_logits=True).router_logits)
        chosen = logits.reshape(len(logits), -1, logits.shape[-1]).topk(top_k, dim=-1).indices  # layer, token, slot
        for phase, part in (("prefill", chosen[:, : len(prompt)]), ("decode", chosen[:, len(prompt) :])):
            new = torch.stack([torch.bincount(layer.flatten(), minlength=logits.shape[-1]) for layer in part])
            counts[phase] = new if counts[phase] is None else counts[phase] + new
    Path(out).write_text(json.dumps({phase: count.tolist() for phase, count in counts.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
