"""A small study with made-up records, its report and its archive, for tests of archives."""

from __future__ import annotations

from pathlib import Path

import synthetic
from moebench import figures
from moebench.claims import collect
from moebench.plan.file import read_plan
from moebench.report import build
from moebench.report.archive import archive
from moebench.storage import staged


def make(root: Path) -> None:
    """A small study in the usual layout, below the current folder."""
    plan = synthetic.Plan()
    plan.experiment("e", synthetic.figure("fig", "lines", "batch"))
    for batch in (1, 2, 4, 8):
        plan.add("e", {"batch": batch}, {"batch": batch, "input_tokens": 16, "output_tokens": 8}, model="olmoe-tiny")
    plan.data["derived"] = {"olmoe-tiny.x-1": derived(root)}
    fates = iter([{}, {}, {"status": "oom_kv"}, None])
    synthetic.measure(plan.data, root / "results", lambda _: next(fates))
    path = plan.write(root / "results")
    (root / "config" / "studies").mkdir(parents=True)
    (root / "config" / "studies" / "tiny.yaml").write_text("name: tiny\n")
    report(root, path)


def derived(root: Path) -> dict:
    """A pruned checkpoint that is made, below the current folder, as the plan has it."""
    settings = {"kind": "inter", "ratio": 0.25, "by": "random", "experts": 6, "seed": 0}
    (root / "models/olmoe-tiny.x-1").mkdir(parents=True)
    facts = {"rounding": "25.0% of 8 experts is 2; 2 are removed", "removed_share": 0.25, "took_s": 1234.5}
    staged.write_manifest(root / "models/olmoe-tiny.x-1", "derived:prune", "r", facts)
    parent = {"path": "models/olmoe-tiny", "derived": None}
    return {"path": "models/olmoe-tiny.x-1", "title": "OLMoE (tiny)", "revision": "r",
            "derived": {"by": "prune", "settings": settings, "parent": parent}}  # fmt: skip


def report(root: Path, path: Path) -> None:
    out, folder = Path("results/tables/tiny"), Path("reports/tiny")
    collect.collect(path.relative_to(root), Path("results"), out)
    figures.render(read_plan(path), out, folder / "figures", "e")
    build(path.relative_to(root), out, folder / "figures", folder / "report.html")


def pack(root: Path, out: str = "archive.zip") -> Path:
    return archive(
        Path("results/plan/tiny.json"),
        Path("results"),
        Path("results/tables/tiny"),
        Path("reports/tiny"),
        Path("config"),
        root / out,
    )
