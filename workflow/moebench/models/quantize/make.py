"""Creates a quantized checkpoint from another one with llm-compressor, in environment ``quantize-cpu`` or
``quantize-cuda``.

The weights are rounded layer by layer, each with the inputs it gets from the layers rounded before it, on the GPU if
there is one.  Experts are calibrated one by one, and all of them on every token, whatever the router chooses.  The
result is in the format of compressed-tensors, which vLLM reads.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moebench.architectures.quantization_schemes import SCHEMES, TOOL
from moebench.errors import UserError
from moebench.formats import Json
from moebench.formats.model import CalibrationDict, DerivationSettings, ModelDict
from moebench.models import calibration_text
from moebench.models.derive import derivation
from moebench.models.quantize import awq
from moebench.models.quantize.coverage import Coverage, checked

NOT_QUANTIZED = ("lm_head", r"re:.*\.gate$", r"re:.*\.router$", r"re:.*\.shared_expert_gate$")
"""Linear layers that are left as they are, beside those of a vision tower."""

NATIVE_EXPERTS = {
    "mixtral": {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"},
    "phimoe": {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"},
}
"""Model types whose published checkpoints, and engines, name an expert's matrices otherwise than llm-compressor."""

Say = Callable[[str], None]


def make(model: ModelDict, parent: Path, out: Path, say: Say) -> Json:
    """Write the quantized ``model`` of a plan into the empty folder ``out`` (``moebench.models.derive``); return facts
    for its
    manifest.

    Raises UserError: the version of llm-compressor is not the plan's, an expert has no calibration tokens, or
    llm-compressor fails (with its message).
    """
    settings = derivation(model)["settings"]
    found = f"llmcompressor {importlib.metadata.version('llmcompressor')}"
    if found != settings["tool"]:
        raise UserError(f"the plan wants {settings['tool']}, this environment has {found}; rebuild it")
    return quantize(parent, out, settings, say)


def quantize(parent: Path, out: Path, settings: DerivationSettings, say: Say) -> Json:
    """Quantize the checkpoint in ``parent`` into ``out``.

    ``settings`` has ``scheme``, for 4-bit schemes ``group``, and for calibrated ones ``calibration`` ({sequences,
    tokens, seed}); ``all_experts`` false calibrates an expert only on the tokens routed to it.  Raises UserError.
    """
    _quiet()
    scheme, name = SCHEMES[settings["scheme"]], parent.name
    try:
        model = _load(parent)
        before = sum(p.numel() for p in model.parameters())
        batches = _batches(parent, settings["calibration"], model.config) if scheme.method != "rtn" else None
        tokens = sum(b["input_ids"].numel() for b in batches) if batches else 0
        say(f"{name}: {scheme.title}" + (f", calibrated on {tokens} tokens" if tokens else ", without calibration"))
        coverage = Coverage(_experts(model))
        _oneshot(model, scheme.name, settings, batches)
        coverage.close()
        facts = checked(coverage.layers, tokens) if batches else {}
        _save(model, parent, out)
    except (RuntimeError, ValueError, NotImplementedError, KeyError, AttributeError) as error:
        words = " ".join(str(error).split())[:400]
        raise UserError(
            f"{parent}: {TOOL} cannot quantize it to {settings['scheme']}: {words or type(error).__name__}"
        ) from error
    return facts | {"parameters": before}


def _quiet() -> None:
    """Disable network access and llm-compressor's progress bars.  Call it before llm-compressor is imported."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}
    os.environ["LLM_COMPRESSOR_LOG_LEVEL"] = "ERROR"  # its GPTQ fails if logging is disabled completely
    warnings.filterwarnings("ignore", message="Attempting to save a model with offloaded modules")
    logging.getLogger("torch.fx").setLevel(logging.ERROR)


def _load(parent: Path) -> Any:
    """Load the model on the host, with a module for each expert."""
    import torch
    from llmcompressor.modeling.moe.linearize import linearize_moe
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(parent, dtype="auto", local_files_only=True, trust_remote_code=False)
    return linearize_moe(model.eval())


def _experts(model: Any) -> list[tuple[str, Any]]:
    from llmcompressor.modeling.moe.linearize import get_linearized_moes

    return list(get_linearized_moes(model))


def _batches(parent: Path, settings: CalibrationDict, config: Any) -> list[Json]:
    """Calibration sequences of exact length, one per batch."""
    import torch

    rows = [torch.tensor([ids]) for ids in calibration_text.sequences(settings, parent, config.vocab_size)]
    return [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in rows]


def _oneshot(model: Any, scheme: str, settings: DerivationSettings, batches: list[Json] | None) -> None:
    import torch
    from llmcompressor import oneshot
    from llmcompressor.pipelines.cache import IntermediatesCache
    from torch.utils.data import DataLoader

    if not torch.accelerator.is_available():  # AWQ pins its cache for an accelerator, and fails without one
        IntermediatesCache.pin_memory = lambda *_, **__: None
    data = DataLoader(batches, batch_size=None) if batches else None
    oneshot(
        model=model,
        recipe=_recipe(model, scheme, settings.get("group")),
        dataset=data,
        num_calibration_samples=len(batches or ()),
        moe_calibrate_all_experts=settings.get("all_experts", True),
    )


def _recipe(model: Any, name: str, group: int | None) -> list[Any]:
    """llm-compressor's modifiers for a scheme."""
    from compressed_tensors.quantization import QuantizationScheme, preset_name_to_scheme
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQMapping, AWQModifier

    scheme = SCHEMES[name]
    preset: QuantizationScheme = preset_name_to_scheme(scheme.preset, ["Linear"])
    if group is not None:
        preset.weights.group_size = group
    how = {"config_groups": {"group_0": preset}, "ignore": list(NOT_QUANTIZED)}
    if scheme.method == "gptq":
        return [GPTQModifier(**how)]
    if scheme.method == "awq":
        pairs = awq.mappings(module for module, _ in model.named_modules())
        return [AWQModifier(mappings=[AWQMapping(*pair) for pair in pairs]), QuantizationModifier(**how)]
    return [QuantizationModifier(**how)]


def _save(model: Any, parent: Path, out: Path) -> None:
    """Write weights and config.json under the names of published checkpoints, and copy the tokenizer's files."""
    model.save_pretrained(out)
    (out / "recipe.yaml").unlink(missing_ok=True)  # the manifest has the settings
    names = NATIVE_EXPERTS.get(model.config.model_type)
    if names:
        _rename(out, names)
    for file in parent.iterdir():
        kept = file.suffix in (".json", ".jinja", ".model", ".txt", ".py") and not file.name.endswith(".index.json")
        if kept and not file.name.startswith((".", "moebench-")) and not (out / file.name).exists():
            shutil.copyfile(file, out / file.name)


def _rename(out: Path, names: dict[str, str]) -> None:
    """Rename the experts' tensors, a shard at a time."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    def native(tensor: str) -> str:
        parts = tensor.split(".")
        return ".".join(names.get(part, part) for part in parts) if "experts" in parts else tensor

    for shard in out.glob("*.safetensors"):
        with safe_open(shard, "pt") as file:
            tensors, about = {native(key): file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
        save_file(tensors, shard, about)
    for index in out.glob("*.safetensors.index.json"):
        content = json.loads(index.read_text(encoding="utf-8"))
        content["weight_map"] = {native(key): shard for key, shard in content["weight_map"].items()}
        index.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
