"""Run by test_quantize.py in the environment quantize-cpu: how near quantized checkpoints are to their parents.

Usage: python quantized.py SPEC.json OUT.json.  SPEC is a list of {parent, out, settings, spoil?}.  Each checkpoint is
made, its matrices are multiplied out again by this file's own arithmetic, and both models run on the same prose.
``spoil``: what a broken quantization would do to the checkpoint, before it is read.
"""

from __future__ import annotations

import functools
import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from moebench.architectures import quantization_schemes
from moebench.errors import UserError
from moebench.models.quantize import make
from moebench.prompts import text_prompts


def nibbles(packed: torch.Tensor) -> torch.Tensor:
    """Eight unsigned numbers of four bits per int32, the lowest first, along the columns."""
    return torch.stack([(packed >> 4 * i) & 15 for i in range(8)], dim=-1).flatten(-2)


def multiplied_out(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every matrix of a compressed-tensors checkpoint as numbers, under its plain name."""
    plain = {k: v for k, v in tensors.items() if ".weight_" not in k and f"{k}_scale" not in tensors}
    for key, scale in tensors.items():
        if not key.endswith(".weight_scale"):
            continue
        name, scale = key.removesuffix("_scale"), scale.float()
        if f"{name}_packed" not in tensors:
            whole = tensors[name].float()
            grown = scale
            if scale.shape != (whole.shape[0], 1):  # blocks, the last of them cut
                grown = scale.repeat_interleave(quantization_schemes.BLOCK, 0).repeat_interleave(
                    quantization_schemes.BLOCK, 1
                )
                grown = grown[: whole.shape[0], : whole.shape[1]]
            plain[name] = (whole * grown).bfloat16()
            continue
        numbers = nibbles(tensors[f"{name}_packed"]).float()
        rows, columns = tensors[f"{name}_shape"].tolist()
        numbers = numbers[:, :columns]
        zero = torch.full_like(scale, 8)
        if f"{name}_zero_point" in tensors:  # packed along the rows
            zero = nibbles(tensors[f"{name}_zero_point"].T.contiguous()).T[:rows].float()
        group = columns // scale.shape[1]
        plain[name] = ((numbers - zero.repeat_interleave(group, 1)) * scale.repeat_interleave(group, 1)).bfloat16()
    return plain


def logits(folder: Path, tensors: dict[str, torch.Tensor] | None, ids: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of a checkpoint, with other tensors under the same names if given."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as place:
        if tensors is not None:
            shutil.copyfile(folder / "config.json", Path(place) / "config.json")
            save_file(tensors, Path(place) / "model.safetensors", {"format": "pt"})
        model = AutoModelForCausalLM.from_pretrained(place if tensors is not None else folder, dtype=torch.float32)
        with torch.no_grad():
            return model(ids).logits.log_softmax(-1)


@functools.cache
def original(parent: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of some prose, and what the unquantized model makes of them."""
    ids = torch.tensor(text_prompts.make("text", text_prompts.text_tokens(parent), 0, 4, 64, 7))
    return ids, logits(parent, None, ids)


def spoiled(tensors: dict[str, torch.Tensor], how: str) -> dict[str, torch.Tensor]:
    """What a broken quantization would leave."""
    found = dict(tensors)
    for key, value in tensors.items():
        if how == "one expert without scales" and "experts.3." in key and key.endswith("weight_scale"):
            found[key] = torch.ones_like(value)
        if how == "shifted zero" and key.endswith("weight_packed"):
            found[key] = value ^ 0x11111111
        if how == "router not rescaled" and key.endswith("post_attention_layernorm.weight"):
            found[key] = value * torch.linspace(0.5, 2, value.numel()).to(value.dtype)
    return found


def readers(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    """How much what routers make of a norm's input has changed: largest relative error of norm times router."""
    found = []
    for name in before:
        if name.endswith(".gate.weight"):
            norm = f"{name.rsplit('.', 3)[0]}.post_attention_layernorm.weight"
            one, other = (t[norm].float() * t[name].float() for t in (before, after))
            found.append(float((one - other).norm() / one.norm()))
    return max(found)


def main(spec: str, out: str) -> None:
    torch.set_num_threads(1)
    text_prompts.text_tokens = functools.cache(text_prompts.text_tokens)
    found = []
    for job in json.loads(Path(spec).read_text()):
        parent, folder = Path(job["parent"]), Path(job["out"])
        reply: dict = {"scheme": job["settings"]["scheme"], "parent": parent.name}
        try:
            if not folder.exists():
                folder.mkdir(parents=True)
                reply["facts"] = make.quantize(parent, folder, job["settings"], print)
            names = set(load_file(parent / "model.safetensors"))
            tensors = load_file(folder / "model.safetensors")
            if job.get("spoil"):
                tensors = spoiled(tensors, job["spoil"])
            plain = multiplied_out(tensors)
            true, near = original(parent)[1], logits(parent, plain, original(parent)[0])
            reply["kl"] = float((true.exp() * (true - near)).sum(-1).mean())
            reply["names"] = sorted(names ^ set(plain))
            reply["readers"] = readers(load_file(parent / "model.safetensors"), tensors)
            reply["bytes"] = (folder / "model.safetensors").stat().st_size
            reply["kept"] = sorted(k for k in names if k in tensors and f"{k}_scale" not in tensors)
            reply["says"] = json.loads((folder / "config.json").read_text())["quantization_config"]
        except UserError as error:
            reply["refused"] = str(error)
        found.append(reply)
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
