"""Plans have the keys and types that ``moebench.formats`` says."""

from __future__ import annotations

import json

import pytest

import studies
from moebench.formats.plan import Plan
from typed import mismatches


@pytest.mark.parametrize("study", ["tiny", "paper"])
def test_a_plan_has_the_keys_and_types_of_its_class(study: str) -> None:
    plan = json.loads(json.dumps(studies.planned(study)))
    assert list(mismatches(plan, Plan)) == []


def test_a_key_too_many_too_few_and_of_another_type_is_told() -> None:
    plan = studies.planned("tiny")
    key = next(iter(plan["cells"]))
    plan["cells"][key]["workload"] |= {"batch": "16", "batches": 1}
    del plan["cells"][key]["protocol"]
    assert sorted(mismatches(plan, Plan)) == [
        f".cells[{key}].protocol: missing",
        f".cells[{key}].workload.batch: '16' is no int",
        f".cells[{key}].workload.batches: no key of Workload",
    ]
