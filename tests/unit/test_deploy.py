"""The recipes for conda and Apptainer build the environments of `.envs`: same builder, same locks."""

import hashlib
import os
import re
import subprocess

import pytest

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
    assert set(environments_needed(studies.drafted(study))) <= set(names)
    locks = hashlib.sha256(b"".join((ROOT / "envs" / f"{name}.lock").read_bytes() for name in names)).hexdigest()
    assert locks in script, f"locks changed: write {locks} in {kind}.post-deploy.sh, so that Snakemake builds anew"
    recipe = studies.read(DEPLOY / f"{kind}.yaml")
    assert recipe["dependencies"] == ["python =3.11", "pip"], "everything else comes from the locks"


@pytest.mark.parametrize("compat", ["no", "13-0"])
def test_an_image_has_the_compatibility_libraries_that_it_was_asked_for(tmp_path, compat):
    section = re.search(r"^%post\n(.*?)^%", (DEPLOY / "moebench.def").read_text(), re.M | re.S)
    assert section is not None
    script = section[1].replace("{{ kind }}", "cuda").replace("{{ compat }}", compat)
    for name in ("apt-get", "python", "rm", "ln"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\n')
        (tmp_path / name).chmod(0o755)
    subprocess.run(["sh", "-eu", "-c", script], check=True, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    calls = (tmp_path / "calls").read_text()
    wanted = "ln -s /usr/local/cuda-13.0/compat /opt/moebench/environments/cuda-compat"
    assert ("apt-get install --yes --no-install-recommends cuda-compat-13-0" in calls) is (compat != "no")
    assert (wanted in calls) is (compat != "no")
