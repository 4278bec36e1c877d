"""The vision part of a model: its parameters, the tokens an image becomes, and what its tiles cost."""

from __future__ import annotations

import math

from moebench.config import Architecture, Vision

MERGE = 2
"""DeepSeek-VL2 merges this many patches by as many into one token, before its projector."""
TILES = 9
"""Most tiles an image is cut into, beside the view of the whole image."""
WHOLE_IMAGES = 2
"""DeepSeek-VL2 cuts images into tiles only in requests with no more of them than this."""


def parameters(architecture: Architecture) -> int:
    """Parameters of vision tower, projector and separators; 0 for a text model.

    Tower of width v, L layers, FFN f, patches of p x p pixels, g x g patches per tile: patch embedding 3 p^2 v + v,
    positions g^2 v, layers L (4 v^2 + 4 v + 2 v f + f + v + 4 v), last norm 2 v; a pooling head is one more layer
    with one norm, and its query v.  Projector to width d with biases: n v d + d + d^2 + d, with n = 4 merged patches in
    DeepSeek-VL2 and n = 1 in LLaVA-NeXT.  Separators: 2 d and d.  Without sizes: the number the registry gives.
    Reference: shapes of deepseek-ai/deepseek-vl2 (SigLIP-SO400M) and of transformers' LLaVA-NeXT.
    """
    vision, hidden = architecture.vision, architecture.hidden_size
    if vision is None:
        return architecture.vision_parameters
    width, norm = vision.hidden_size, 2 * vision.hidden_size
    block = 4 * width**2 + 4 * width + 2 * width * vision.ffn_size + vision.ffn_size + width
    tower = 3 * vision.patch_size**2 * width + width + patches(vision) ** 2 * width
    tower += vision.layers * (block + 2 * norm) + norm
    tower += (block + norm + width) if vision.pooling_head else 0
    deepseek = vision.layout == "deepseek_vl2"
    inputs = width * (MERGE**2 if deepseek else 1)
    return tower + inputs * hidden + hidden + hidden**2 + hidden + (2 if deepseek else 1) * hidden


def tower_weights(architecture: Architecture) -> int:
    """Weights of the matrices that every tile passes, tower and projector; 0 for a text model or without sizes.

    In the notation of :func:`parameters`: 3 p^2 v + L (4 v^2 + 2 v f) + n v d + d^2.
    """
    vision, hidden = architecture.vision, architecture.hidden_size
    if vision is None:
        return 0
    return _tower(vision) + _projector(vision, hidden)


def tile_ops(architecture: Architecture) -> float:
    """Operations of a tile; 0 for a text model or without sizes.

    2 per weight of the tower and patch, 2 per weight of the projector and merged patch, 4 g^4 v per layer for attention
    within the tile.  The tower's are what torch counts (``tests/workflow/test_checkpoints.py``).
    """
    vision, hidden = architecture.vision, architecture.hidden_size
    if vision is None:
        return 0.0
    edge = patches(vision)
    merged = math.ceil(edge / MERGE) if vision.layout == "deepseek_vl2" else edge
    attention = vision.layers * 4.0 * edge**4 * vision.hidden_size
    return 2.0 * (_tower(vision) * edge**2 + _projector(vision, hidden) * merged**2) + attention


def _tower(vision: Vision) -> int:
    width = vision.hidden_size
    return 3 * vision.patch_size**2 * width + vision.layers * (4 * width**2 + 2 * width * vision.ffn_size)


def _projector(vision: Vision, hidden: int) -> int:
    return (MERGE**2 if vision.layout == "deepseek_vl2" else 1) * vision.hidden_size * hidden + hidden**2


def patches(vision: Vision) -> int:
    """Patches along the edge of a tile."""
    return vision.tile_size // vision.patch_size


def image_tokens(architecture: Architecture, images: int, image_size: int | None) -> int | None:
    """Tokens that ``images`` square images of ``image_size`` x ``image_size`` pixels become, in one request.

    An image is shown whole, on one tile, and in n x n tiles: the fewest that lose no pixel, at most 3 x 3.  With g
    tokens along the edge of a tile, DeepSeek-VL2 gives g (g + 1) + 1 + n g (n g + 1) tokens (a line end per row, one
    separator; a single tile in requests of more than two images), LLaVA-NeXT g^2 + n g (n g + 1).  Without
    ``image_size`` it is the most that images of any shape become: 9 tiles in a column have the most lines, 9 g (g + 1).
    None if the registry has no sizes of the vision part.  The engine's own count is in every record, and a
    difference makes the cell ``invalid``.
    """
    if not images:
        return 0
    vision = architecture.vision
    if vision is None:
        return None
    high, wide = _cut(vision, images, image_size)
    grid = patches(vision)
    if vision.layout == "llava_next":
        return images * (grid**2 + high * grid * (wide * grid + 1))
    grid = math.ceil(grid / MERGE)
    return images * (grid * (grid + 1) + 1 + high * grid * (wide * grid + 1))


def tiles(architecture: Architecture, images: int, image_size: int | None) -> int | None:
    """Tiles of a request's images, their whole views among them.  None where they are not known: without the sizes of
    the vision part, or with images of sizes of their own.
    """
    if not images:
        return 0
    if architecture.vision is None or image_size is None:
        return None
    high, wide = _cut(architecture.vision, images, image_size)
    return images * (1 + high * wide)


def _cut(vision: Vision, images: int, image_size: int | None) -> tuple[int, int]:
    """Rows and columns of tiles; without ``image_size`` those of the most tokens."""
    if vision.layout == "deepseek_vl2" and images > WHOLE_IMAGES:
        return 1, 1
    if image_size is None:
        return TILES, 1
    edge = min(math.isqrt(TILES), math.ceil(image_size / vision.tile_size))
    return edge, edge
