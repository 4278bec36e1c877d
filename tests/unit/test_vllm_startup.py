"""Quick loads: on a CPU garbage is collected once, whatever happens in between; on a device nothing changes."""

import contextlib
import functools
import gc
import os
import subprocess
import sys
import types

import pytest

from moebench.engines import imports, vllm, vllm_startup


@pytest.fixture
def collected(monkeypatch):
    found = []
    monkeypatch.setattr(gc, "collect", lambda generation=2: found.append(generation))
    return found


def test_garbage_is_collected_once_at_the_end_also_after_a_failure(collected, monkeypatch):
    monkeypatch.setattr(vllm_startup, "on_a_cpu", lambda: True)
    with vllm_startup.one_collection():
        gc.collect()
        gc.collect(1)
        assert collected == []
    assert collected == [2]
    with pytest.raises(RuntimeError), vllm_startup.one_collection():
        gc.collect()
        raise RuntimeError
    gc.collect()
    assert collected == [2, 2, 2]
    assert vllm_startup.shutdown_s() is not None


def test_on_a_device_every_collection_takes_place_when_it_is_asked_for(collected, monkeypatch):
    monkeypatch.setattr(vllm_startup, "on_a_cpu", lambda: False)
    for context in (vllm_startup.one_collection, vllm_startup.quick_start):
        with context():
            gc.collect()
            gc.collect(1)
            assert collected == [2, 1]
        assert collected == [2, 1]
        collected.clear()
    assert vllm_startup.shutdown_s() is None


def test_what_was_imported_stays_excluded_while_models_come_and_go(monkeypatch):
    """vLLM freezes a loaded model, and before the next one unfreezes everything."""
    monkeypatch.setattr(vllm_startup, "on_a_cpu", lambda: True)
    vllm_startup.set_imports_aside()
    try:
        aside = gc.get_freeze_count()
        with vllm_startup.one_collection():
            model = [[] for _ in range(10_000)]
            gc.freeze()
        assert len(model) == 10_000 and gc.get_freeze_count() <= aside, "the model can be collected"
        with vllm_startup.one_collection():
            gc.unfreeze()
        assert gc.get_freeze_count() > 0.9 * aside
    finally:
        gc.unfreeze()


def test_the_kernels_are_replaced_once_for_all_models_of_a_process(monkeypatch):
    replaced = []
    platforms = types.ModuleType("vllm.platforms")
    platforms.current_platform = types.SimpleNamespace(register_triton_kernel_overrides=lambda: replaced.append(1))
    monkeypatch.setitem(sys.modules, "vllm", types.ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    for _ in range(2):
        vllm_startup.register_kernels_once.__wrapped__()
        platforms.current_platform.register_triton_kernel_overrides()
    assert replaced == [1]


def test_no_garbage_is_collected_while_much_is_imported_also_after_a_failure():
    with pytest.raises(ImportError), imports.no_collection():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()


@pytest.mark.parametrize(("cpu", "threads", "copied"), [(True, 1, True), (True, 2, False), (False, 1, False)])
def test_processes_are_copies_on_a_cpu_where_one_thread_is_all_there_is(monkeypatch, cpu, threads, copied):
    """Threads do not survive a copy, nor does what a device was told."""
    modules = {name: types.ModuleType(name) for name in ("vllm", "vllm.v1", "vllm.v1.engine", "vllm.v1.executor")}
    utils, executor, torch = types.SimpleNamespace(), types.SimpleNamespace(), types.ModuleType("torch")
    torch.get_num_threads = lambda: threads
    modules["vllm.v1.engine"].utils, modules["vllm.v1.executor"].multiproc_executor = utils, executor
    for name, module in (modules | {"torch": torch}).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(vllm_startup, "on_a_cpu", lambda: cpu)
    vllm_startup.copy_processes()
    if not copied:
        assert not vars(utils) and not vars(executor)
        return
    for module in (utils, executor):
        child = module.get_mp_context().Process(target=lambda: os._exit(7))
        child.start()
        child.join()
        assert child.exitcode == 7, "it needed no import: what it runs has no name that another process could import"


def test_a_server_is_forked_only_from_a_process_without_threads(monkeypatch):
    torch, imported = types.ModuleType("torch"), []
    torch.get_num_threads = lambda: 1
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(vllm_startup, "import_server", lambda: imported.append(1))
    monkeypatch.setattr(vllm_startup, "on_a_cpu", lambda: True)
    for threads in (None, 2):
        assert not vllm_startup.ready_to_serve(threads)
    assert not imported, "it would only cost time"
    code = "import threading\nfrom moebench.engines import vllm_startup\nprint(vllm_startup.tasks())\n"
    code += "threading.Thread(target=threading.Event().wait, daemon=True).start()\nprint(vllm_startup.tasks())"
    found = subprocess.run([sys.executable, "-c", code], input="\n", capture_output=True, text=True, check=True).stdout
    assert found == "1\n2\n"
    for tasks, forked in ((1, True), (2, False), (0, False)):  # 0: unknown
        monkeypatch.setattr(vllm_startup, "tasks", lambda tasks=tasks: tasks)
        assert vllm_startup.ready_to_serve(1) is forked
    assert len(imported) == 3


def test_a_thread_of_jemalloc_does_not_count(tmp_path):
    for number, name in enumerate(("python", "jemalloc_bg_thd")):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "comm").write_text(f"{name}\n")
    assert vllm_startup.tasks(tmp_path) == 1


@pytest.mark.parametrize(("knobs", "asks"), [({}, False), ({"ep": True}, True), ({"routing": "uniform"}, True)])
def test_vllm_is_imported_only_for_what_it_may_refuse(monkeypatch, knobs, asks):
    """Before a server starts, which imports vLLM itself."""
    monkeypatch.setitem(sys.modules, "vllm", None)
    config = {"ep": False, "pp": 1, "dp": 1, "kernel_config": "tuned", "expert_kernel": "fused", **knobs}
    engine = vllm.VllmEngine({"config": config, "model": {"architecture": {"family": "mixtral"}}, "nodes": 1})
    with pytest.raises(ImportError) if asks else contextlib.nullcontext():
        engine.refuse()


@pytest.mark.parametrize("on_a_cpu", [True, False])
def test_on_a_cpu_ranks_are_counted_by_what_vllm_would_compile(on_a_cpu, monkeypatch):
    def count(x, values):
        return sum(v >= values for v in x)

    compiled = functools.wraps(count)(lambda x, values: count(x, values))
    logprobs = types.SimpleNamespace(batched_count_greater_than=compiled)
    for name in ("vllm", "vllm.v1", "vllm.v1.sample", "vllm.v1.sample.ops"):
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(logprobs=logprobs))
    monkeypatch.setattr(vllm_startup, "on_a_cpu", lambda: on_a_cpu)
    vllm_startup.count_ranks_uncompiled()
    assert logprobs.batched_count_greater_than is (count if on_a_cpu else compiled)
