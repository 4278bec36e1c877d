"""Run by test_images.py in the engine's environment: what a vision-language model makes of images, in float32.

Usage: python images.py PLAN OUT.  Loads the plan's only engine configuration as a measurement does.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

from moebench.engines.vllm_images import Placeholders
from moebench.measure.worker import Session
from moebench.prompts import images

TEXT = list(range(300, 316))
SIZES = (40, 56, 57, 112, 113, 300)


def data_url(image) -> str:
    data = io.BytesIO()
    image.save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def with_transformers(folder: str, shown: list, output_tokens: int) -> list[list[int]]:
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    tokens = []
    for image in shown:
        seen = processor(images=[image], text="<image>", return_tensors="pt")
        ids = torch.cat([seen["input_ids"], torch.tensor([TEXT])], dim=1)
        kept = {"pixel_values": seen["pixel_values"].float(), "image_sizes": seen["image_sizes"]}
        with torch.no_grad():
            made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
                                  max_new_tokens=output_tokens, min_new_tokens=output_tokens, **kept)  # fmt: skip
        tokens.append(made[0, ids.shape[1] :].tolist())
    return tokens


def tiles_of_deepseek_vl2(edges: list[int]) -> dict[int, list[int]]:
    """Tiles along width and height by vLLM's own processor of DeepSeek-VL2, with the resolutions of its config.json."""
    from vllm.transformers_utils.processors.deepseek_vl2 import DeepseekVLV2Processor

    nine = range(1, 10)
    settings = SimpleNamespace(candidate_resolutions=[(384 * a, 384 * b) for a in nine for b in nine if a * b <= 9])
    best = DeepseekVLV2Processor.select_best_resolution
    return {edge: [side // 384 for side in best(settings, (edge, edge))] for edge in edges}


def main(plan_file: str, out: str) -> None:
    plan = json.loads(Path(plan_file).read_text())
    ((_, spec),) = plan["engines"].items()
    session = Session()
    session.load({"name": "vllm", "engine": spec})
    engine, found = session.engine, {}
    model = engine.llm.llm_engine.model_executor.driver_worker.worker.model_runner.get_model()
    towed: list[int] = []
    tower = model.embed_multimodal
    model.embed_multimodal = lambda **given: towed.append(len(given["pixel_values"])) or tower(**given)

    def tokens(shown: list) -> list[list[int]]:
        inputs = Placeholders(engine.llm).inputs([TEXT] * len(shown), [[image] for image in shown])
        outputs = engine.llm.generate(inputs, engine._sampling(8), use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    shown = [images.make(1, 1, size, seed)[0][0] for size, seed in ((112, 0), (112, 1), (300, 0))]
    found["vllm"], found["transformers"] = tokens(shown), with_transformers(spec["model"]["path"], shown, 8)
    towed.clear()
    found["again"] = [tokens([shown[0]])[0] for _ in range(3)] + tokens([shown[0]] * 2)
    found["images_through_the_tower"] = sum(towed)
    found["tokens"] = {size: images.tokens(engine.trace([TEXT], 2, images.make(1, 1, size, seed=4))) for size in SIZES}
    engine.trace([[Placeholders(engine.llm).token] * 4], 2, images.make(1, 1, 56, seed=4))
    content = [{"type": "image_url", "image_url": {"url": data_url(shown[0])}}, {"type": "text", "text": "What is it?"}]
    (chat,) = engine.llm.chat([{"role": "user", "content": content}], engine._sampling(2), use_tqdm=False)
    token = Placeholders(engine.llm).token
    found["chat"] = {"image_tokens": chat.prompt_token_ids.count(token), "begins": chat.prompt_token_ids[0]}
    found["tiles"] = tiles_of_deepseek_vl2([1, 200, 384, 385, 768, 769, 1152, 5000])
    session.unload({})
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
