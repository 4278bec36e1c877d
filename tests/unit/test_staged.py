"""Manifests of staged models: what is missing, cut off or changed is found."""

import json
import os

import pytest

from moebench.storage import staged


@pytest.fixture
def folder(tmp_path):
    model = tmp_path / "model"
    (model / "sub").mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "sub" / "weights.safetensors").write_bytes(bytes(range(256)) * 4)
    (model / ".cache").mkdir()
    (model / ".cache" / "half.incomplete").write_text("x")
    staged.write_manifest(model, "hub:org/name", "0" * 40)
    return model


def test_manifest_describes_every_file_and_nothing_hidden(folder):
    manifest = staged.read_manifest(folder)
    assert (manifest["schema"], manifest["source"], manifest["revision"]) == (1, "hub:org/name", "0" * 40)
    assert set(manifest["files"]) == {"config.json", "sub/weights.safetensors"}
    # sha256sum of "{}"
    assert manifest["files"]["config.json"] == {
        "bytes": 2,
        "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    }
    assert staged.check(folder) == staged.check(folder, full=True) == []


def test_writing_again_leaves_no_temporary_files_and_does_not_list_itself(folder):
    again = staged.write_manifest(folder, "random_init", "abc")
    assert set(again["files"]) == {"config.json", "sub/weights.safetensors"}
    assert sorted(os.listdir(folder)) == [".cache", "config.json", "moebench-stage.json", "sub"]


def test_no_manifest(tmp_path):
    assert staged.read_manifest(tmp_path) is None
    assert staged.check(tmp_path) == [f"{tmp_path}: no moebench-stage.json, so staging is incomplete"]
    assert len(staged.check(tmp_path / "absent")) == 1


def test_missing_file(folder):
    (folder / "config.json").unlink()
    assert staged.check(folder) == [f"{folder / 'config.json'}: missing"]


def test_cut_off_file(folder):
    path = folder / "sub" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert staged.check(folder) == [f"{path}: 1023 bytes instead of 1024"]


def test_flipped_bit_is_found_by_the_full_check_only(folder):
    path = folder / "sub" / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert staged.check(folder) == []
    assert staged.check(folder, full=True) == [f"{path}: its SHA-256 differs from the staged one"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": 1}', '{"schema": 1, "files": {"a": 3}}'])
def test_something_else_in_its_place(folder, text):
    (folder / staged.MANIFEST).write_text(text)
    (problem,) = staged.check(folder)
    assert "not a manifest" in problem and "stage it again" in problem
    with pytest.raises(ValueError, match="not a manifest"):
        staged.read_manifest(folder)


def test_newer_schema_is_refused(folder):
    manifest = staged.read_manifest(folder)
    (folder / staged.MANIFEST).write_text(json.dumps({**manifest, "schema": 2}))
    assert staged.check(folder) == [f"{folder / staged.MANIFEST}: manifest of schema 2, this version reads 1"]
