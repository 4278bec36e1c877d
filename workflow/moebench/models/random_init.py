"""Random checkpoints of every architecture family, small enough to write in a moment and real enough to measure.

    python -m moebench.models.random_init SPEC.json OUT_DIR [--tokenizers DIR]
    python -m moebench.models.random_init SPECS.json [--tokenizers DIR]

``SPEC.json`` is ``{"architecture": {...}, "seed": 0}``; ``SPECS.json`` a list of those, each with its ``out`` and, if
wanted, ``source`` and ``revision``.  Runs in the engine's environment: torch, transformers and tokenizers are imported
inside functions, everything else is the standard library.

An engine's dummy weights are so small that every layer routes all tokens to the same experts.  Here every weight is
drawn from N(0, 1/fan_in), which preserves the scale of activations: router logits have a standard deviation of about 1
for any width, so tokens and layers choose different experts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from moebench.architectures.hf_config import to_hf_config
from moebench.engines.imports import model_classes
from moebench.errors import disk_is_full
from moebench.formats import Json
from moebench.formats.model import ArchitectureDict
from moebench.models import random_vision
from moebench.prompts import prose
from moebench.storage import staged

NO_ROOM = 3
"""Exit code where the disk is full, as of the command line; what was being written is gone again."""

RECIPE_VERSION = 1
"""Raised whenever the same architecture and seed give other weights, another tokenizer or another config.json."""

BOS, EOS, PAD = "<|begin|>", "<|end|>", "<|pad|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def recipe(architecture: ArchitectureDict, seed: int) -> str:
    """Revision of a checkpoint: a hash of everything that determines it."""
    what = {"recipe": RECIPE_VERSION, "architecture": architecture, "seed": seed}
    text = json.dumps(what, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# ----------------------------------------------------------------------------------------- tokenizer


def train_tokenizer(vocab_size: int, extra: tuple[str, ...] = ()) -> Any:
    """A byte-level BPE tokenizer of exactly ``vocab_size`` tokens, trained on :func:`prose.corpus`; ``extra``:
    additional special tokens.

    Raises ValueError if the result has another size: the corpus has too few merges, or the size is too small for the
    bytes.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS, PAD, *ROLES, *extra],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(prose.corpus().split("\n\n"), trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(
            f"vocab_size {vocab_size}: the tokenizer trained on the corpus has {tokenizer.get_vocab_size()} tokens; "
            "choose as many, or fewer (bytes and special tokens alone are 262)"
        )
    return tokenizer


def tokenizer_file(vocab_size: int, cache: Path, extra: tuple[str, ...] = ()) -> Path:
    """``tokenizer.json`` for a vocabulary size, trained on first use and stored in ``cache``."""
    path = cache / f"bpe-{vocab_size}-{''.join(word.strip('<>') + '-' for word in extra)}{prose.sha256()[:12]}.json"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            train_tokenizer(vocab_size, extra).save(str(temporary))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def _save_tokenizer(file: Path, architecture: ArchitectureDict, folder: Path) -> dict[str, int]:
    """Write the tokenizer's files, and the processor's if the model takes images, into ``folder``; return the special
    token ids for config.json."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(file),
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=[*ROLES, *_image_token(architecture)],
        model_max_length=architecture["max_positions"],
        clean_up_tokenization_spaces=False,
    )
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    if architecture["vision"]:
        tokenizer.chat_template = random_vision.CHAT_TEMPLATE
        random_vision.save_processor(architecture["vision"], tokenizer, folder)
        ids["image_token_index"] = tokenizer.convert_tokens_to_ids(random_vision.IMAGE)
    else:
        tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return ids


def _image_token(architecture: ArchitectureDict) -> tuple[str, ...]:
    return (random_vision.IMAGE,) if architecture["vision"] else ()


# ------------------------------------------------------------------------------------------- weights


def _fill(name: str, tensor: Any, seed: int, tied: bool, inputs_first: bool = False) -> None:
    """Fill one tensor in place; its values depend only on the seed and its name, not on the order of tensors.

    Biases are 0, norms 1, matrices N(0, 1/fan_in).  A looked-up row is a sum of one term, so an embedding has a fan-in
    of 1, unless it is the output matrix too.  ``inputs_first``: experts' matrices are inputs x outputs (gpt-oss).
    """
    import numpy as np
    import torch

    fan_in = random_vision.fan_in(name, tuple(tensor.shape))
    if (tensor.dim() < 2 or name.endswith("_bias")) and fan_in is None:
        tensor.fill_(0.0 if name.endswith("bias") else 1.0)
        return
    if fan_in is None:
        rows_first = name.endswith(("experts.gate_up_proj", "experts.down_proj")) and inputs_first
        fan_in = 1 if "embed_tokens" in name and not tied else tensor.shape[-2 if rows_first else -1]
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    # numpy draws the same numbers on every machine; torch's normal_ differs with the CPU's vector instructions.
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
    drawn = generator.standard_normal(tuple(tensor.shape), dtype=np.float32)
    tensor.copy_(torch.from_numpy(drawn) * fan_in**-0.5)


def _save_model(config: Json, seed: int, folder: Path) -> None:
    """Write config.json and weights into ``folder``."""
    with model_classes():
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
        from transformers.utils import logging

    logging.disable_progress_bar()
    settings = dict(config)
    engine_classes = settings.pop("architectures")
    resolved = AutoConfig.for_model(settings.pop("model_type"), **settings)
    kind = AutoModelForImageTextToText if "vision_config" in config else AutoModelForCausalLM
    with torch.device("meta"):  # no memory, and no initialization that is discarded
        model = kind.from_config(resolved, dtype=torch.bfloat16)
    model = model.to_empty(device="cpu")
    model.tie_weights()
    with torch.no_grad():
        saved = model.state_dict()  # the correction of GLM's scores is a buffer, not a parameter
        buffers = [(name, buffer) for name, buffer in model.named_buffers() if name in saved]
        for name, tensor in (*model.named_parameters(), *buffers):
            _fill(name, tensor, seed, bool(config["tie_word_embeddings"]), config["model_type"] == "gpt_oss")
    model.save_pretrained(folder)
    if "vision_config" in config:
        random_vision.name_tower_as_engine_does(folder)
    path = folder / "config.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    written["architectures"] = engine_classes
    path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write(
    architecture: ArchitectureDict,
    seed: int,
    out: Path,
    tokenizers: Path | None = None,
    source: str = "random_init",
    revision: str | None = None,
    full: bool = False,
) -> bool:
    """Write one checkpoint to ``out``, completely or not at all; return False if it exists (``full``: compare all
    bytes).

    Trained tokenizers are stored in ``tokenizers``, by default ``.tokenizers`` beside ``out``. Raises ValueError for an
    architecture that cannot be written.
    """
    revision = revision or recipe(architecture, seed)
    if not staged.check(out, full=full) and (manifest := staged.read_manifest(out)):
        if (manifest["source"], manifest["revision"]) == (source, revision):
            return False
    config = to_hf_config(architecture)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        cache = tokenizers or out.parent / ".tokenizers"
        file = tokenizer_file(architecture["vocab_size"], cache, _image_token(architecture))
        config |= _save_tokenizer(file, architecture, temporary)
        _save_model(config, seed, temporary)
        staged.write_manifest(temporary, source, revision)
        staged.publish(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m moebench.models.random_init", description="Write random checkpoints."
    )
    parser.add_argument("specs", type=Path, help="JSON: one {architecture, seed}, or a list of them with out")
    parser.add_argument("out", type=Path, nargs="?", help="folder of the checkpoint, for a single spec")
    parser.add_argument("--tokenizers", type=Path, help="where trained tokenizers are kept (beside the checkpoints)")
    options = parser.parse_args(arguments)
    specs = json.loads(options.specs.read_text(encoding="utf-8"))
    if isinstance(specs, dict):
        if options.out is None and "out" not in specs:
            parser.error("give the folder of the checkpoint")
        specs = [{**specs, "out": str(options.out or specs.get("out"))}]
    for number, spec in enumerate(specs, 1):
        started = time.perf_counter()
        try:
            new = write(
                spec["architecture"],
                spec.get("seed", 0),
                Path(spec["out"]),
                options.tokenizers,
                spec.get("source", "random_init"),
                spec.get("revision"),
                spec.get("full", False),
            )
        except Exception as error:  # the libraries that write weights and tokenizers have errors of their own
            if not disk_is_full(error):
                raise
            print(f"{spec['out']}: the disk is full", file=sys.stderr)
            return NO_ROOM
        done = f"written in {time.perf_counter() - started:.1f} s" if new else "there already"
        print(f"[{number}/{len(specs)}] {spec['out']}: {done}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
