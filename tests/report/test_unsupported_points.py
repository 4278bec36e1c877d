"""Grid points that cannot run: figure and page show them with the reason."""

from __future__ import annotations

import studies
from moebench.claims.collect import collect
from moebench.commands.planning import keep, make_plan
from moebench.config import Config
from moebench.figures import render_all
from moebench.report import build

FIX = {"pruning": "inter", "batch": 2, "input_tokens": 16, "output_tokens": 4}
SPEED = {"id": "speed", "number": "1", "title": "Speed", "kind": "lines", "x": "prune_ratio", "y": ["e2e_s"],
         "hue": "model"}  # fmt: skip
ASKED = {"tasks": ["arc-easy", "boolq"], "data": "fixtures", "fix": {"pruning": "inter"},
         "cross": {"model": ["tiny-mixtral", "qwen3-0.6b"], "prune_ratio": [0.5]}}  # fmt: skip


def test_figure_and_page_say_it(tmp_path):
    cross = {"model": ["tiny-mixtral", "qwen3-0.6b"], "prune_ratio": [0, 0.5]}
    figures = [SPEED, SPEED | {"id": "answers", "y": ["accuracy"]}]
    asked = {"blocks": [{"fix": FIX, "cross": cross}], "accuracy": {"test": [ASKED]}, "figures": figures}
    made = make_plan(Config(studies.folder(tmp_path, {"x": asked}, models="models")), "test")
    results, drawn = tmp_path / "results", tmp_path / "reports/test/figures"
    path = keep(made, results)
    collect(path, results, results / "tables/test", results_name="results")
    render_all(made, results / "tables/test", drawn)
    page = build(path, results / "tables/test", drawn, tmp_path / "reports/test/report.html").read_text()
    csv = (drawn / "speed.csv").read_text()
    assert csv.count("unsupported") == 1 and csv.count("it has no experts to prune") == 1
    assert "4 cells" in page or "0 of 4" in page
    assert "qwen3-0.6b is dense, it has no experts to prune" in page
    assert "the plan; the cell is not tried" in page
    (name,) = (row["engine"] for row in made["experiments"]["x"]["unsupported"])
    assert f"cells/{name}" not in page, "there is no record to link to"
