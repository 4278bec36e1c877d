"""The documentation is right about the source tree."""

import re
import tomllib

import pytest

import studies
from moebench import columns
from studies import ROOT

PACKAGE = ROOT / "workflow" / "moebench"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXEMPT = {"facts.md": "names modules of vLLM and transformers", "0008-own-downloader.md": "superseded"}


def test_architecture_shows_the_layers_that_lint_checks():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    checked = next(c["layers"] for c in contracts if c["id"] == "layers")
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "architecture.md").read_text(), re.M)
    shown = [sorted(name.removesuffix(".py") for name in re.findall(r"`([\w.]+)`", row)) for row in rows]
    assert shown == [sorted(layer.split(" : ")) for layer in checked]


def test_every_decision_is_in_the_index_under_its_title():
    folder = ROOT / "docs" / "decisions"
    index = dict(re.findall(r"^\| \[\d{4}\]\((.+?)\) \| (.+?) \|$", (folder / "README.md").read_text(), re.M))
    for page in sorted(folder.glob("0*.md")):
        title = page.read_text().splitlines()[0].split(": ", 1)[1]
        assert index.get(page.name, "").startswith(title), f"docs/decisions/README.md: {page.name} is {title!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_that_a_page_names_exist(page):
    if page.name in EXEMPT:
        return
    for name in re.findall(r"`(?:moebench/)?([a-z_]+(?:/[a-z_]+)*\.py)`", page.read_text()):
        places = [PACKAGE / name, ROOT / name, *PACKAGE.rglob(name)]
        assert any(p.is_file() for p in places), f"{page.relative_to(ROOT)} names {name}: no such module"


def test_nothing_calls_the_range_of_a_few_repeats_a_95_percent_interval():
    """Wherever 95% and an interval are named together, it is said of what: of resamples, or else the range."""
    files = [*PAGES, *(PACKAGE / "report").glob("*.j2")]
    texts = {path.name: path.read_text() for path in files if path.parent.name != "decisions"}
    texts["columns"] = columns.markdown()
    parts = [(name, part) for name, text in texts.items() for part in re.split(r"\n\n|\n(?=[-|])", text)]
    named = [(name, part) for name, part in parts if "95%" in part and re.search("interval|bootstrap", part)]
    assert len(named) > 5
    assert [pair for pair in named if not re.search("resample|range|left-out", pair[1])] == []


@pytest.mark.parametrize(
    ("study", "said"),
    [
        ("tiny", r"measures (\d+) cells with vLLM, runs (\d+) accuracy tasks"),
        ("tiny-full", r"nightly version: (\d+) cells, (\d+) accuracy tasks"),
    ],
)
def test_the_readme_counts_the_cells_that_a_study_has(study, said):
    found = re.search(said, " ".join((ROOT / "README.md").read_text().split()))
    plan = studies.drafted(study)
    asked = len(plan["cells"]), sum(len(part["cells"]) for part in plan["accuracy"].values())
    assert found and (int(found[1]), int(found[2])) == asked
