"""transformers as an engine: eager, a batch of equal lengths, one step per token (5.19.0).

For cross-checks, and for machines without vLLM.  There is no scheduler: a batch is prefilled in one step, and its
requests end together.  Experts use transformers' own implementations (knob ``expert_kernel``).
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch

from moebench.architectures.hf_config import shape_overrides
from moebench.engines.expert_counts import ExpertCounts
from moebench.engines.protocol import Images, Routed
from moebench.engines.trace import encode
from moebench.formats import Knobs
from moebench.formats.plan import OPTIONAL, EngineConfig
from moebench.formats.record import LoadFacts, Trace

_FIXED = {"quantization": "none", "kv_cache_dtype": "auto", "draft_model": None, "tp": 1, "pp": 1,
          "dp": 1, "kernel_config": "tuned", "mla": True}  # fmt: skip
"""Knobs that this engine does not have: another value must not be measured as if it were this one."""
_NO_IMAGES = "images in transformers are not supported by this driver yet"


class TransformersEngine:
    """An engine configuration in this process (``engines.protocol.Engine``)."""

    def __init__(self, spec: EngineConfig):
        self.spec, self.config, self.model_spec = spec, spec["config"], spec["model"]
        self.model: Any = None
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._capture: dict[int, ExpertCounts] = {}
        self._hooks: list[Any] = []
        self._phase = "prefill"

    def load(self) -> LoadFacts:
        """Load the model.  Raises any exception of transformers, and NotImplementedError for unsupported knobs."""
        for knob in OPTIONAL:
            if (given := cast(Knobs, self.config).get(knob)) is not None:
                raise NotImplementedError(f"{knob}={given!r} is not supported by this driver yet")
        for knob, value in _FIXED.items():
            if (asked := cast(Knobs, self.config)[knob]) != value:
                raise NotImplementedError(f"{knob}={asked!r} is not supported by this driver yet")
        import transformers

        started = time.perf_counter()
        path, config = self.model_spec["path"], self.config
        overrides = shape_overrides(self.model_spec, config, config["top_k"])
        trust = {
            "trust_remote_code": self.model_spec.get("trust_remote_code", False)
        }  # never prompts on standard input
        resolved = transformers.AutoConfig.from_pretrained(path, **trust)
        for name, value in overrides.items():
            if not isinstance(value, dict):
                setattr(resolved, name, value)
                continue
            for key, inner in value.items():
                setattr(getattr(resolved, name), key, inner)
        settings = {"dtype": getattr(torch, config["dtype"]), "experts_implementation": config["expert_kernel"]}
        auto = transformers.AutoModelForCausalLM
        if config["weights"] == "dummy":
            with contextlib.nullcontext() if self.device == "cpu" else torch.device(self.device):
                self.model = auto.from_config(resolved, **settings, **trust)
        else:
            self.model = auto.from_pretrained(path, config=resolved, **settings, **trust)
        self.model.eval().to(self.device)  # via host memory: loading onto a device would need accelerate
        # On a device `generate` would decode with batched_mm where grouped_mm is asked for, and `decode` would not.
        self.model._optimize_model_for_decode = contextlib.nullcontext
        text = self.model.config.get_text_config()
        facts = text.to_dict()
        return {
            "load_s": time.perf_counter() - started,
            "kv_cache_tokens": None,
            "eager": True,
            "experts_implementation": getattr(text, "_experts_implementation", None),
            "attention_implementation": getattr(text, "_attn_implementation", None),
            "resolved_config": {
                k: v for k, v in sorted(facts.items()) if v is None or isinstance(v, (int, float, str, bool))
            },
        }

    # ------------------------------------------------------------------------------------------ routing

    def _experts(self) -> Iterator[tuple[int, Any]]:
        """(layer, module) of every experts module: its second argument is the experts chosen per token."""
        for name, module in self.model.named_modules():
            if type(module).__name__.endswith("Experts") and hasattr(module, "num_experts"):
                yield next(int(part) for part in name.split(".") if part.isdigit()), module

    def set_top_k(self, top_k: int) -> None:
        """Set the active experts per token of every router.  Raises NotImplementedError if no router has a top-k."""
        routers = [m for m in self.model.modules() if isinstance(getattr(m, "top_k", None), int)]
        if not routers:
            raise NotImplementedError("top-k cannot be set live: no router of this model has a top_k")
        for router in routers:
            router.top_k = top_k

    def capture(self, on: bool) -> bool:
        """Count the experts that tokens are sent to, at the input of the experts' modules."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if on:
            self._capture = {}
            for layer, module in self._experts():
                counts = self._capture[layer] = ExpertCounts(module.num_experts)
                self._hooks.append(module.register_forward_pre_hook(self._keeper(counts), with_kwargs=True))
        return bool(self._hooks)

    def captured(self) -> dict[int, Routed]:
        """Counts per layer since capture began, also by phase: here a step is all prefill or all decode."""
        return {number: counts.routed() for number, counts in self._capture.items()}

    def _keeper(self, counts: ExpertCounts) -> Callable[..., None]:
        """A hook before an experts module that counts which experts its tokens are sent to."""

        def keep(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            chosen = kwargs["top_k_index"] if "top_k_index" in kwargs else args[1]
            counts.add(chosen, int(chosen.shape[0]), self._phase)

        return keep

    # ------------------------------------------------------------------------------------------ running

    def decode(self, prompts: list[list[int]], output_tokens: int) -> tuple[list[float], list[list[int]]]:
        """Greedy tokens of a batch: end of each step (s since the start) and the tokens, [batch][output_tokens].

        A step ends when its tokens are on the host.  Raises NotImplementedError for prompts of different lengths,
        because padding would be computed, timed and routed too.
        """
        if len({len(prompt) for prompt in prompts}) != 1:
            raise NotImplementedError("prompts of different lengths in a batch are not supported by this driver")
        gc.collect()
        ends, steps = [], []
        self.settle()
        start = time.perf_counter()
        with torch.inference_mode():
            step, cache = torch.tensor(prompts, device=self.device), None
            for number in range(output_tokens):
                self._phase = "decode" if number else "prefill"
                out = self.model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
                step, cache = out.logits[:, -1].argmax(-1, keepdim=True), out.past_key_values
                steps.append(step[:, 0].tolist())
                ends.append(time.perf_counter() - start)
        return ends, [list(tokens) for tokens in zip(*steps, strict=True)]

    def settle(self) -> None:
        """Wait for all queued work of the device; a time may be read only after this."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def trace(self, prompts: list[list[int]], output_tokens: int, images: Images = ()) -> Trace:
        """Run a batch, recording the end of every step."""
        if images:
            raise NotImplementedError(_NO_IMAGES)
        ends, tokens = self.decode(prompts, output_tokens)
        for request in tokens:
            if len(request) != output_tokens:
                raise RuntimeError(f"a request gave {len(request)} tokens instead of {output_tokens}")
        coded = encode(list(range(output_tokens)), [1] * output_tokens)
        return {"step_end_s": ends, "requests": [coded for _ in prompts]}

    def timed(self, prompts: list[list[int]], output_tokens: int, images: Images = ()) -> float:
        """Run a batch through ``generate``; return its wall time, s."""
        if images:
            raise NotImplementedError(_NO_IMAGES)
        inputs = torch.tensor(prompts, device=self.device)
        gc.collect()
        self.settle()
        start = time.perf_counter()
        with torch.inference_mode():
            outputs = self.model.generate(
                inputs,
                attention_mask=torch.ones_like(inputs),
                do_sample=False,
                max_new_tokens=output_tokens,
                eos_token_id=None,
                pad_token_id=0,
            )
            got = outputs.shape[1] - inputs.shape[1]
        self.settle()
        elapsed = time.perf_counter() - start
        if got != output_tokens:
            raise RuntimeError(f"a request gave {got} tokens instead of {output_tokens}")
        return elapsed

    def counters(self) -> dict[str, float]:
        """No counters: there are no preemptions and no prefix cache."""
        return {"preemptions": 0.0, "prefix_cache_hits": 0.0}

    def close(self) -> None:
        """Free the model."""
        self.model = None
        self._capture, self._hooks = {}, []
        gc.collect()
        if self.device == "cuda":
            with contextlib.suppress(RuntimeError):
                torch.cuda.empty_cache()
