"""Quick loads: on a CPU garbage is collected once, whatever happens in between; on a device nothing changes."""

import gc

import pytest

from moebench.engines import vllm_startup


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
