"""Images in vLLM's prompts: settings of the engine, placeholders, and counting what they become."""

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

    Its processor reads the tokenizer.  No cache of processed images: without it, and without prefix caching, vLLM names
    images by request instead of by content, so that its encoder cache never finds one either.
    """
    return {"skip_tokenizer_init": False, "mm_processor_cache_gb": 0} if sees(model) else {}


class Placeholders:
    """Puts a loaded model's placeholder for an image before the text of a prompt, once per image."""

    def __init__(self, llm: Any):
        processor = llm.llm_engine.renderer.get_mm_processor().info.get_hf_processor()
        self.token = processor.tokenizer.convert_tokens_to_ids(processor.image_token)

    def inputs(self, prompts: list[list[int]], images: Images) -> list[Any]:
        """vLLM's inputs.  A random prompt may hold the placeholder's own id: its neighbour is taken instead."""
        from vllm.inputs import TokensPrompt

        made = []
        for prompt, own in zip(prompts, images, strict=True):
            text = [self.token - 1 if token == self.token else token for token in prompt]
            ids = [self.token] * len(own) + text
            made.append(TokensPrompt(prompt_token_ids=ids, multi_modal_data={"image": list(own)}))
        return made


def image_tokens(prompts: list[list[int]], seen: list[int]) -> list[int]:
    """Tokens that each request's images became; ``seen``: tokens the engine processed per prompt, in order."""
    return [total - len(prompt) for prompt, total in zip(prompts, seen, strict=True)]
