"""The parts of a random vision-language checkpoint other than its language model: image token, processor, tower.

Runs in the engine's environment, like ``random_init``, which calls it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from moebench.architectures.hf_config import tile_grids
from moebench.formats.model import VisionDict

IMAGE = "<image>"
"""The token that stands for an image in a prompt; the engine's processor puts the image's tokens in its place."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}{{ '" + IMAGE + "\n' }}{% endif %}"
    "{% endfor %}{% endif %}{{ '\n' }}{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""A turn per message; its content is a text, or a list of texts and images as OpenAI's interface has them."""


def save_processor(vision: VisionDict, tokenizer: Any, folder: Path) -> None:
    """Write the processor of a LLaVA-NeXT: it tiles an image, scales it to -1 to 1, and counts its tokens."""
    from transformers import LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    edge = vision["tile_size"]
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": edge},
        crop_size={"height": edge, "width": edge},
        do_center_crop=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        image_grid_pinpoints=tile_grids(vision),
    )
    LlavaNextProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=vision["patch_size"],
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        image_token=IMAGE,
        chat_template=tokenizer.chat_template,
    ).save_pretrained(folder)


def fan_in(name: str, shape: tuple[int, ...]) -> int | None:
    """Fan-in of a tensor of the vision tower (number of summed terms); None for a tensor outside the tower.

    A convolution over a patch sums channels x height x width; a position is looked up and the separator is used
    unchanged, so both have the scale of their neighbours.
    """
    if name.endswith(("position_embedding.weight", "image_newline")):
        return 1
    return math.prod(shape[1:]) if len(shape) == 4 else None


def name_tower_as_engine_does(folder: Path) -> None:
    """Rename the tower's weights: transformers 5 saves them without the level ``vision_model``, which vLLM requires and
    transformers can read, too."""
    from safetensors.torch import load_file, save_file

    (path,) = folder.glob("*.safetensors")
    weights = load_file(path)
    tower = "vision_tower."
    save_file(
        {f"{tower}vision_model.{n.removeprefix(tower)}" if n.startswith(tower) else n: w for n, w in weights.items()},
        path,
        metadata={"format": "pt"},
    )
