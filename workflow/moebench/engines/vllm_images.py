"""Images in vLLM's prompts: engine settings, placeholders, and the number of image tokens."""

from __future__ import annotations

from typing import Any

from moebench.engines.protocol import Images
from moebench.formats import Knobs
from moebench.formats.model import ModelDict


def sees(model: ModelDict) -> bool:
    """Whether a model of the plan has a vision part."""
    architecture = model["architecture"]
    return bool(architecture["vision"] or architecture["vision_parameters"])


def arguments(model: ModelDict) -> Knobs:
    """Arguments of ``vllm.LLM`` that a model with a vision part needs.

    Its processor reads the tokenizer.  The cache of processed images is off: without it and without prefix caching,
    vLLM identifies images by request instead of by content, so its encoder cache never hits either.
    """
    return {"skip_tokenizer_init": False, "mm_processor_cache_gb": 0} if sees(model) else {}


class Placeholders:
    """Puts a loaded model's placeholder for an image before the text of a prompt, once per image."""

    def __init__(self, llm: Any):
        processor = llm.llm_engine.renderer.get_mm_processor().info.get_hf_processor()
        self.token = processor.tokenizer.convert_tokens_to_ids(processor.image_token)

    def inputs(self, prompts: list[list[int]], images: Images) -> list[Any]:
        """vLLM's inputs.  If a random prompt contains the placeholder's id, the neighbouring id is used instead."""
        from vllm.inputs import TokensPrompt

        inputs = []
        for prompt, own in zip(prompts, images, strict=True):
            text = [self.token - 1 if token == self.token else token for token in prompt]
            ids = [self.token] * len(own) + text
            inputs.append(TokensPrompt(prompt_token_ids=ids, multi_modal_data={"image": list(own)}))
        return inputs


def image_tokens(prompts: list[list[int]], seen: list[int]) -> list[int]:
    """Image tokens of each request; ``seen``: tokens that the engine processed per prompt, in order."""
    return [total - len(prompt) for prompt, total in zip(prompts, seen, strict=True)]
