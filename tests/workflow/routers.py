"""Run by test_activation_counts.py in the engine's environment: how often transformers' routers choose each expert.

Usage: python routers.py FOLDER PROMPTS MOST_TOKENS OUTPUT_TOKENS OUT.  ``PROMPTS`` is a JSON list of texts, or of
pairs of text and image file.  Texts are cut after ``MOST_TOKENS`` tokens, and each is continued greedily on its own,
without a cache, in float32; then what the routers choose for all its tokens but the last is counted.  Writes counts per
layer and expert, of the prompts' tokens (images' among them) and of the generated ones apart, and the tokens of each
image.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

from moebench.prompts import images, text_prompts


def shown(folder: str, image: str) -> dict[str, torch.Tensor]:
    """Token ids and pixels of an image, by the model's own processor."""
    made = AutoProcessor.from_pretrained(folder)(images=[images.read(Path(image))], text="<image>", return_tensors="pt")
    return {name: made[name] for name in ("input_ids", "pixel_values", "image_sizes")}


def main(folder: str, prompts_file: str, most_tokens: str, output_tokens: str, out: str) -> None:
    given = [item if isinstance(item, list) else [item, None] for item in json.loads(Path(prompts_file).read_text())]
    kind = AutoModelForImageTextToText if given[0][1] else AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    experts = (getattr(model.config, "text_config", None) or model.config).num_experts
    chosen: list[torch.Tensor] = []
    for name, module in model.named_modules():
        if name.endswith(".mlp.gate"):
            module.register_forward_hook(lambda module, args, output: chosen.append(output[2]))
    counts: dict[str, torch.Tensor] = {}
    image_tokens = []
    texts = text_prompts.items(Path(folder), [text for text, _ in given], int(most_tokens))
    for text, (_, image) in zip(texts, given, strict=True):
        pixels = shown(folder, image) if image else {}
        before = pixels.pop("input_ids", torch.empty(1, 0, dtype=torch.long))
        image_tokens.append(before.shape[1])
        ids = torch.cat([before, torch.tensor([text])], dim=1)
        read = ids.shape[1]
        with torch.no_grad():
            for _ in range(int(output_tokens)):
                ids = torch.cat([ids, model(ids, **pixels).logits[:, -1:].argmax(-1)], dim=1)
            chosen.clear()
            model(ids[:, :-1], **pixels)
        for phase, part in (("prefill", slice(None, read)), ("decode", slice(read, None))):
            new = torch.stack([torch.bincount(layer[part].flatten(), minlength=experts) for layer in chosen])
            counts[phase] = counts[phase] + new if phase in counts else new
    found = {phase: count.tolist() for phase, count in counts.items()}
    Path(out).write_text(json.dumps(found | {"image_tokens": image_tokens}))


if __name__ == "__main__":
    main(*sys.argv[1:])
