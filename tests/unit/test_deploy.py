"""The recipes for conda and Apptainer build the environments of `.envs`: same builder, same locks."""

import hashlib
import re

import pytest
import yaml

import studies
from moebench.plan.jobs import environments_needed
from studies import ROOT

DEPLOY = ROOT / "envs" / "deploy"


@pytest.mark.parametrize(("kind", "study"), [("cpu", "tiny-full"), ("cuda", "paper")])
def test_a_recipe_builds_what_a_study_needs_from_the_locks(kind, study):
    script, image = (DEPLOY / f"{kind}.post-deploy.sh").read_text(), (DEPLOY / "moebench.def").read_text()
    (command,) = re.findall(r'build\.py" (.*)$', script, re.M)
    (in_image,) = re.findall(r"build\.py (.*)$", image, re.M)
    names = command.split()
    assert in_image.replace("{{ kind }}", kind).split() == names
    assert set(environments_needed(studies.planned(study))) <= set(names)
    locks = hashlib.sha256(b"".join((ROOT / "envs" / f"{name}.lock").read_bytes() for name in names)).hexdigest()
    assert locks in script, f"locks changed: write {locks} in {kind}.post-deploy.sh, so that Snakemake builds anew"
    recipe = yaml.safe_load((DEPLOY / f"{kind}.yaml").read_text())
    assert recipe["dependencies"] == ["python =3.11", "pip"], "everything else comes from the locks"
