"""Fast loads of many small models on a CPU. Computed results stay the same.

Measured on two cores of an AMD EPYC, vLLM 0.32, a 20 MB model: a load took 10 s if its architecture was new to the
machine and 2.0 s otherwise; an unload took 1.6 s.  With this module, a load takes 0.3 s of CPU time, an unload 0.1 s.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import multiprocessing
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from pathlib import Path

from moebench.engines.imports import no_collection


def on_a_cpu() -> bool:
    """Whether vLLM runs on a CPU here.  Elsewhere nothing below changes what vLLM does."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


@contextlib.contextmanager
def quick_start() -> Iterator[None]:
    """Load a model quickly on a CPU."""
    if on_a_cpu():
        inspect_here()
        register_kernels_once()
        copy_processes()
        mask_tokens_uncompiled()
    with one_collection():
        yield


def inspect_here() -> None:
    """On a CPU, have vLLM inspect a model class in this process.

    It does so in a new one, which imports all of vLLM again (8 s), "to avoid initializing CUDA"; the CPU build has no
    CUDA to initialize.
    """
    if on_a_cpu():
        from vllm.model_executor.models import registry

        registry._run_in_subprocess = lambda inspect: inspect()


def import_server() -> None:
    """Import what ``vllm serve`` runs."""
    with no_collection():
        import vllm.entrypoints.cli.main
        import vllm.entrypoints.cli.serve  # noqa: F401 - main imports it only when it is called
    set_imports_aside()


def ready_to_serve(threads: int | None) -> bool:
    """Whether a server may be forked from this process: vLLM runs on a CPU, and nothing here has threads.

    If the engine configuration has one of its ``threads`` (knob ``cpu_threads``), what a server runs is imported here;
    otherwise the answer is no, without an import.
    """
    if threads != 1:
        return False
    import_server()
    import torch

    return on_a_cpu() and torch.get_num_threads() == 1 and tasks() == 1


def tasks(of: Path = Path("/proc/self/task")) -> int:
    """Threads of this process, without jemalloc's, which stops for a fork; 0: unknown."""
    return sum((task / "comm").read_text() != "jemalloc_bg_thd\n" for task in of.glob("*"))


def set_imports_aside() -> None:
    """On a CPU, exclude what is imported so far from garbage collection: half a second for each model otherwise.

    For use before a model is loaded, and after the one before it was unloaded: a model that is excluded stays forever.
    """
    if on_a_cpu():
        gc.freeze()


@functools.cache
def register_kernels_once() -> None:
    """Have vLLM replace its Triton kernels with the CPU's only for the first model: a search of all modules, 0.3 s."""
    from vllm.platforms import current_platform

    register = current_platform.register_triton_kernel_overrides
    current_platform.register_triton_kernel_overrides = functools.cache(register)


def count_ranks_uncompiled() -> None:
    """On a CPU, do not compile how vLLM counts the ranks of log-probabilities: the first time takes 15 s of g++.

    For jobs whose times do not count, before a model is loaded.  The ranks are integers: they stay the same.
    """
    if on_a_cpu():
        from vllm.v1.sample.ops import logprobs

        logprobs.batched_count_greater_than = inspect.unwrap(logprobs.batched_count_greater_than)


def mask_tokens_uncompiled() -> None:
    """On a CPU, do not compile how vLLM masks the tokens of other ranks' vocabulary, with tensor parallelism.

    The first time takes 15 s of g++ in every new project folder.  Uncompiled, a step is no slower
    (docs/decisions/0063).
    """
    from vllm.model_executor.layers import vocab_parallel_embedding as embedding

    embedding.get_masked_input_and_mask = inspect.unwrap(embedding.get_masked_input_and_mask)


def copy_processes() -> None:
    """On a CPU with one thread, fork vLLM's processes from this one, so they need not import vLLM again (5 s each).

    Its default on a CPU is to spawn, since forks share the binding of their threads to cores; one thread is not bound
    here.  With more threads, those already started do not survive a fork.
    """
    import torch

    if not on_a_cpu() or torch.get_num_threads() > 1:
        return
    from vllm.v1.engine import utils
    from vllm.v1.executor import multiproc_executor

    def copying() -> BaseContext:
        return multiprocessing.get_context("fork")

    utils.get_mp_context = multiproc_executor.get_mp_context = copying


@contextlib.contextmanager
def one_collection() -> Iterator[None]:
    """On a CPU, collect garbage once, at the end, however often the code within asks for it.

    vLLM also excludes a loaded model from collection, and before the next one includes everything again, even what
    ``set_imports_aside`` excluded: not here.  Nor on a device: vLLM empties the device's cache after a collection,
    which must have freed the memory by then.
    """
    if not on_a_cpu():
        yield
        return
    asked = gc.collect, gc.freeze, gc.unfreeze
    gc.collect, gc.freeze, gc.unfreeze = (lambda generation=2: 0), (lambda: None), (lambda: None)
    try:
        yield
    finally:
        gc.collect, gc.freeze, gc.unfreeze = asked
        gc.collect()


def shutdown_s() -> float | None:
    """Seconds that vLLM waits for the end of its processes before it kills them (None: its own default).

    The processes of a CPU build never end on their own, and hold no device.
    """
    return 0.5 if on_a_cpu() else None
