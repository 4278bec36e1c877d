"""Quick loads: garbage is collected once, whatever happens in between."""

import gc

import pytest

from moebench.engines.vllm_startup import one_collection


def test_garbage_is_collected_once_at_the_end_also_after_a_failure(monkeypatch):
    collected = []
    monkeypatch.setattr(gc, "collect", lambda generation=2: collected.append(generation))
    with one_collection():
        gc.collect()
        gc.collect(1)
        assert collected == []
    assert collected == [2]
    with pytest.raises(RuntimeError), one_collection():
        gc.collect()
        raise RuntimeError
    gc.collect()
    assert collected == [2, 2, 2]
