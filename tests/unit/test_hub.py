"""Staging from the hub, against a real server on loopback: one test or more per promise of ``moebench.models.hub``."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from huggingface_hub import constants

import hubbench
import studies
from hubbench import FILES, MB, NAME, WEIGHTS, Bench, assert_whole, noise
from hubserver import Faults, HubServer, Repo
from moebench.commands.stage import stage_study
from moebench.config import Config
from moebench.config.lockfile import ModelLock
from moebench.errors import ConfigError, StageError
from moebench.models import hub
from moebench.models.hubprogress import Progress
from moebench.storage import staged
from project import HANG_S


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path) -> Iterator[None]:
    with hubbench.environment(tmp_path):
        yield


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as running:
        running.tokens |= {"hf_member", "hf_stranger"}
        yield running


@pytest.fixture
def repo(server: HubServer) -> Repo:
    made = server.repo(NAME)
    made.push(FILES)
    return made


@pytest.fixture
def bench(tmp_path: Path, server: HubServer) -> Bench:
    root = tmp_path / "checkout"
    root.mkdir()
    return Bench(root, server)


# ------------------------------------------------------------------------------------------ data sets


def test_a_data_set_is_staged_whole_and_altered_bytes_are_fetched_again(bench: Bench, server: HubServer) -> None:
    server.repo(NAME).push({"config.json": b"a model of the same name"})
    made = server.repo(f"datasets/{NAME}")
    rows, card = noise(MB, 1), b"---\nconfigs: []\n---\n"
    made.push({"main/test-00000-of-00001.parquet": rows, "README.md": card, "large.safetensors": noise(MB, 2)})
    wanted: dict[str, Any] = {"repo_type": "dataset", "source": {"include": ("*.parquet", "*.md", "*.safetensors")}}
    done = bench.stage(**wanted)
    assert (done.commit, done.files) == (made.branches["main"], 3)
    file = done.folder / "main/test-00000-of-00001.parquet"
    assert file.read_bytes() == rows and (done.folder / "README.md").read_bytes() == card
    file.write_bytes(rows[:-1] + bytes([rows[-1] ^ 1]))
    assert bench.stage(full=True, **(wanted | {"source": dict(wanted["source"])})).fetched_files == 1
    assert file.read_bytes() == rows
    assert "/datasets/org/nothing" in bench.refused(name="org/nothing", repo_type="dataset")


# ------------------------------------------------------------------------------------- pinned commit


def test_stages_whole_and_writes_the_manifest_last(bench: Bench, server: HubServer, repo: Repo) -> None:
    commit = repo.branches["main"]
    during: list[str] = []
    repo.faults[WEIGHTS] = Faults(after_bytes=MB, hook=lambda: during.extend(bench.written()))
    done = bench.stage()
    assert (done.folder, done.commit, done.files, done.fetched_files) == (bench.folder(commit), commit, 3, 3)
    assert done.bytes == 2 * MB + len(FILES["config.json"])
    assert_whole(done.folder, FILES)
    manifest = staged.read_manifest(done.folder) or {}
    assert (manifest["source"], manifest["revision"]) == (f"hub:{NAME}", commit)
    here = f"models/{done.folder.name}"
    assert f"{here}/{staged.MANIFEST}" not in during
    assert f"{here}/{WEIGHTS}" not in during
    assert any(path.startswith(f"{here}/.cache/") and path.endswith(".incomplete") for path in during)
    pin = bench.lock.read()[f"{NAME}@main"]
    assert (pin.commit, pin.files, pin.bytes) == (commit, 3, done.bytes)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", pin.staged_at or "")


def test_a_branch_is_resolved_once(bench: Bench, repo: Repo) -> None:
    first = bench.stage()
    newer = repo.push(FILES | {"config.json": b'{"a": 2}\n'})
    shutil.rmtree(first.folder)
    again = bench.stage()
    assert again.commit == first.commit
    assert_whole(again.folder, FILES)
    updated = bench.stage(update=True)
    assert updated.commit == newer
    assert bench.lock.commit(NAME, "main") == newer
    assert f"main moved from {first.commit} to {newer}" in bench.log.getvalue()
    assert_whole(updated.folder, FILES | {"config.json": b'{"a": 2}\n'})


def test_the_pin_holds_from_the_first_byte(bench: Bench, repo: Repo) -> None:
    first = repo.branches["main"]
    repo.faults[WEIGHTS] = Faults(fail_status=503, fails=99)
    bench.refused()
    repo.push({"config.json": b"other"})
    repo.faults.clear()
    assert bench.lock.read()[f"{NAME}@main"].staged_at is None
    assert bench.stage().commit == first
    assert bench.lock.read()[f"{NAME}@main"].staged_at is not None


def test_staging_again_leaves_everything_as_it_is(bench: Bench, server: HubServer, repo: Repo) -> None:
    folder = bench.stage().folder
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in bench.root.rglob("*") if path.is_file()}
    server.forget()
    assert bench.stage().fetched_files == 0
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in before} == before
    assert [seen.path for seen in server.requests] == [f"/api/models/{NAME}/revision/{bench.lock.commit(NAME, 'main')}"]
    assert folder.is_dir()


def test_a_commit_that_left_the_hub_says_update(bench: Bench, repo: Repo) -> None:
    gone = bench.stage()
    shutil.rmtree(gone.folder)
    repo.push({"config.json": b"new"})
    del repo.commits[gone.commit]
    message = bench.refused()
    assert gone.commit in message
    assert "--update" in message


def test_two_commits_in_one_folder_leave_no_file_of_the_older(bench: Bench, repo: Repo) -> None:
    bench.folder = lambda commit: bench.root / "models" / "moe"  # type: ignore[method-assign]
    bench.stage()
    repo.push(newer := {"config.json": b"new", "model-1.safetensors": noise(1000)})
    done = bench.stage(update=True)
    assert_whole(done.folder, newer)


# ---------------------------------------------------------------------------------------- checksums


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_corrupted_once_is_fetched_again(bench: Bench, server: HubServer, repo: Repo, name: str) -> None:
    repo.faults[name] = Faults(corrupt=1)
    assert_whole(bench.stage().folder, FILES)
    assert server.served(name) == 2 * len(FILES[name])
    assert f"{name}: arrived with a wrong checksum" in bench.log.getvalue()


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_always_corrupted_is_refused(bench: Bench, repo: Repo, name: str) -> None:
    repo.faults[name] = Faults(corrupt=99)
    message = bench.refused()
    assert f"{name}: arrived twice with a wrong" in message
    folder = bench.folder(repo.branches["main"])
    assert not (folder / name).exists()
    assert not (folder / staged.MANIFEST).exists()


def test_an_altered_file_alone_is_fetched_again(bench: Bench, server: HubServer, repo: Repo) -> None:
    folder = bench.stage().folder
    with (folder / WEIGHTS).open("r+b") as stream:
        stream.seek(MB)
        stream.write(b"x")
    assert any(WEIGHTS in problem for problem in staged.check(folder, full=True))
    server.forget()
    assert bench.stage().fetched_files == 0  # same size: found only where everything is hashed
    assert bench.stage(full=True).fetched_files == 1
    assert (server.served(WEIGHTS), server.served("config.json")) == (2 * MB, 0)
    assert_whole(folder, FILES)
    assert f"{WEIGHTS}: differs from the hub" in bench.log.getvalue()


def test_a_missing_or_shortened_file_is_noticed_without_hashing(bench: Bench, server: HubServer, repo: Repo) -> None:
    folder = bench.stage().folder
    (folder / "config.json").unlink()
    os.truncate(folder / WEIGHTS, 10)
    server.forget()
    assert bench.stage().fetched_files == 2
    assert_whole(folder, FILES)


def test_files_without_a_manifest_are_hashed_not_believed(bench: Bench, server: HubServer, repo: Repo) -> None:
    folder = bench.stage().folder
    (folder / staged.MANIFEST).unlink()
    (folder / "config.json").write_bytes(b'{"a": 9}\n')
    server.forget()
    assert bench.stage().fetched_files == 1
    assert server.served(WEIGHTS) == 0
    assert_whole(folder, FILES)


# ------------------------------------------------------------------------------------ interruptions


def test_a_dropped_connection_is_tried_again(bench: Bench, server: HubServer, repo: Repo) -> None:
    repo.faults[WEIGHTS] = Faults(drop_after=700_000)
    assert_whole(bench.stage().folder, FILES)
    assert len(server.asked(WEIGHTS)) == 2


def test_a_hub_that_fails_for_a_while_is_asked_again(bench: Bench, repo: Repo) -> None:
    repo.faults[WEIGHTS] = Faults(fail_status=503, fails=2)
    assert_whole(bench.stage().folder, FILES)
    assert "the hub answered HTTP 503; 1 files to go, again in 0.01 s" in bench.log.getvalue()


def test_a_hub_that_keeps_failing_ends_in_one_line_and_whole_files_are_kept(
    bench: Bench, server: HubServer, repo: Repo
) -> None:
    repo.faults[WEIGHTS] = Faults(fail_status=503, fails=99)
    assert "answered HTTP 503" in bench.refused()
    repo.faults.clear()
    server.forget()
    assert_whole(bench.stage().folder, FILES)
    assert (server.served("config.json"), server.served(WEIGHTS)) == (0, 2 * MB)


def test_a_download_that_brings_nothing_is_no_success(bench: Bench, server: HubServer, repo: Repo) -> None:
    server.refuse_tree = True  # the library returns a folder that is there, with a warning
    assert "config.json: missing after the download" in bench.refused()
    assert not (bench.folder(repo.branches["main"]) / staged.MANIFEST).exists()


@pytest.mark.parametrize(
    ("error", "tries", "words"),
    [
        (RuntimeError("Xet gave up\nafter a while"), 4, "the download failed (Xet gave up); run this again"),
        (OSError("file should be of size 2"), 4, "the download failed (file should be of size 2); run this again"),
        (ValueError("The file is too large"), 1, "the download failed (The file is too large); run this again"),
        (OSError(errno.EDQUOT, "quota"), 1, "your disk quota is used up at "),
    ],
)
def test_what_the_library_cannot_fetch_is_one_line(
    bench: Bench, repo: Repo, monkeypatch: pytest.MonkeyPatch, error: Exception, tries: int, words: str
) -> None:
    calls: list[Any] = []

    def fail(*_: Any, **options: Any) -> None:
        calls.append(options["allow_patterns"])
        raise error

    monkeypatch.setattr(hub, "snapshot_download", fail)
    assert words in bench.refused()
    assert calls == [["config.json", WEIGHTS, "vocab.txt"]] * tries


def test_two_processes_do_not_write_one_folder(bench: Bench, repo: Repo) -> None:
    guard = bench.folder(repo.branches["main"]) / ".cache" / "moebench.lock"
    guard.parent.mkdir(parents=True)
    with FileLock(guard):
        assert "another process is downloading it" in bench.refused()
    assert_whole(bench.stage().folder, FILES)


# ----------------------------------------------------------------------------------------- refusals


def test_gated_without_a_token(bench: Bench, server: HubServer, repo: Repo) -> None:
    repo.gated = True
    message = bench.refused()
    assert f"accept the licence at {server.endpoint}/{NAME}" in message
    assert "`hf auth login` or set HF_TOKEN" in message
    assert bench.written() == []


def test_gated_with_a_token_that_has_no_access(
    bench: Bench, server: HubServer, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.gated = True
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    message = bench.refused()
    assert "no access" in message and f"{server.endpoint}/{NAME}" in message
    assert bench.written() == []


@pytest.mark.parametrize("store", ["environment", "login"])
def test_gated_with_access(
    bench: Bench, server: HubServer, repo: Repo, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    repo.gated, repo.members = True, {"hf_member"}
    if store == "environment":
        monkeypatch.setenv("HF_TOKEN", "hf_member")
    else:
        Path(constants.HF_TOKEN_PATH).parent.mkdir()
        Path(constants.HF_TOKEN_PATH).write_text("hf_member")
    assert_whole(bench.stage().folder, FILES)
    assert {seen.token for seen in server.requests if not seen.path.endswith(WEIGHTS)} == {"hf_member"}
    assert {seen.token for seen in server.asked(WEIGHTS)} == {None}  # never to the CDN, which is another origin
    assert "hf_member" not in bench.log.getvalue()
    for path in bench.root.rglob("*"):
        assert not path.is_file() or b"hf_member" not in path.read_bytes()


def test_private_without_a_token(bench: Bench, repo: Repo) -> None:
    repo.private = True
    message = bench.refused()
    assert "no such repository, or a private one" in message
    assert "HF_TOKEN" in message


@pytest.mark.parametrize("echo", [False, True])
def test_invalid_token(
    bench: Bench, server: HubServer, repo: Repo, monkeypatch: pytest.MonkeyPatch, echo: bool
) -> None:
    server.echo_token = echo
    monkeypatch.setenv("HF_TOKEN", "hf_expired_secret")
    message = bench.refused()
    assert "does not accept your token" in message
    assert "hf auth login" in message
    assert "hf_expired_secret" not in message


@pytest.mark.parametrize("token", ["hf_secret\x0cx", "hf_secret\u00e9"])
def test_a_token_that_cannot_be_sent_is_not_printed(
    bench: Bench, repo: Repo, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    message = bench.refused()
    assert "HF_TOKEN contains invalid characters" in message
    assert "secret" not in message


@pytest.mark.parametrize("token", [None, "hf_stranger"])
def test_unknown_repository(bench: Bench, monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    message = bench.refused(name="org/mo")
    assert "no such repository" in message
    assert bench.written() == []


def test_unknown_revision(bench: Bench, repo: Repo) -> None:
    message = bench.refused("v9")
    assert "no revision 'v9'" in message
    assert bench.written() == []


def test_include_that_matches_nothing(bench: Bench, repo: Repo) -> None:
    assert "matches include: *.gguf" in bench.refused(source={"include": ["*.gguf"]})


@pytest.mark.parametrize("name", ["../evil.json", "/evil.json", "a/../../evil.json", "moebench-stage.json"])
def test_file_names_that_leave_the_folder_are_refused(bench: Bench, repo: Repo, name: str) -> None:
    repo.push({"config.json": b"{}", name: b"x"})
    assert repr(name) in bench.refused()
    assert bench.written() == []


def test_files_in_subfolders(bench: Bench, repo: Repo) -> None:
    repo.push(files := {"config.json": b"{}", "text encoder/a+b.json": b"[]", "x/y/model.safetensors": noise(1000)})
    assert_whole(bench.stage().folder, files)


def test_hidden_files_are_left_out_as_in_the_manifest(bench: Bench, repo: Repo) -> None:
    repo.push(FILES | {".hidden.json": b"{}", ".cache/x.json": b"{}"})
    assert_whole(bench.stage().folder, FILES)


def test_a_damaged_manifest_is_written_anew(bench: Bench, repo: Repo) -> None:
    folder = bench.stage().folder
    (folder / staged.MANIFEST).write_text("{")
    assert bench.stage().fetched_files == 0
    assert_whole(folder, FILES)


# ------------------------------------------------------------------------------------------ network


def closed_port() -> str:
    with HubServer() as server:
        return server.endpoint


def test_an_unreachable_endpoint_fails_without_long_waits(bench: Bench) -> None:
    endpoint = closed_port()
    message = bench.refused(endpoint=endpoint, retry_waits_s=(HANG_S,) * 5)  # one wait would be seen
    assert f"{endpoint.removeprefix('http://')} cannot be reached" in message
    assert "HF_ENDPOINT" in message
    assert bench.written() == []


def test_an_endpoint_that_never_answers_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.3)  # 10 s unless the user sets it
    with socket.create_server(("127.0.0.1", 0)) as silent:
        message = bench.refused(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "cannot be reached" in message
    assert "timed out" in message


def test_an_endpoint_that_is_no_address(bench: Bench) -> None:
    assert "not the address of a hub" in bench.refused(endpoint="huggingface.example")


def test_a_password_in_the_endpoint_is_not_printed(bench: Bench) -> None:
    endpoint = closed_port().replace("http://", "http://user:passw0rd@")
    assert "passw0rd" not in bench.refused(endpoint=endpoint)


def test_a_login_page_in_between(bench: Bench, server: HubServer, repo: Repo) -> None:
    server.html = True
    assert "is not a hub's" in bench.refused()


def test_offline_mode_says_so(bench: Bench, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in bench.refused()


def test_what_is_whole_on_disk_needs_no_network(bench: Bench, repo: Repo) -> None:
    done = bench.stage()
    endpoint = closed_port()
    assert bench.stage(endpoint=endpoint, full=True) == hub.Staged(done.folder, done.commit, 3, done.bytes, 0)
    assert f"using {done.folder}, which is complete" in bench.log.getvalue()
    (done.folder / "config.json").write_bytes(b'{"a": 9}\n')
    assert "cannot be reached" in bench.refused(endpoint=endpoint, full=True)
    assert "config.json" in bench.log.getvalue().splitlines()[-1]


def test_hf_endpoint_counts_as_it_is_now(
    bench: Bench, server: HubServer, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.endpoint != constants.ENDPOINT  # huggingface_hub read it when it was imported
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint + "/")
    bench.server = None
    assert_whole(bench.stage().folder, FILES)


def test_nothing_but_the_repository_is_asked_for(bench: Bench, server: HubServer, repo: Repo) -> None:
    bench.stage()
    assert [seen.path for seen in server.requests if NAME not in seen.path] == []


# --------------------------------------------------------------------------------------------- disk


def test_what_does_not_fit_is_refused_before_anything_is_written(
    bench: Bench, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10 * MB, 9 * MB, MB))
    message = bench.refused()
    assert "does not fit: 2 MB to fetch, 1 MB free" in message
    assert bench.written() == []
    assert f"3 files, 2 MB; to fetch: 3 files, 2 MB; free at {bench.root}: 1 MB" in bench.log.getvalue()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs root and the right to mount a tmpfs, for a disk that is really full")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_small_disk_is_refused_and_stays_empty(small_disk: Path, server: HubServer, repo: Repo) -> None:
    repo.push({WEIGHTS: noise(5 * MB)})
    bench = Bench(small_disk, server)
    assert f"does not fit: 5 MB to fetch, 4.19 MB free at {small_disk}" in bench.refused()
    assert list(small_disk.iterdir()) == []


@pytest.mark.filterwarnings("ignore:Not enough free disk space")  # the library's, of a file begun after that
def test_a_disk_that_fills_up_meanwhile(small_disk: Path, server: HubServer, repo: Repo) -> None:
    bench, ballast = Bench(small_disk, server), small_disk / "ballast"

    def fill() -> None:
        with ballast.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
            while stream.write(b"\0" * 4096):
                pass

    repo.faults[WEIGHTS] = Faults(after_bytes=MB, hook=fill)
    message = bench.refused()
    assert f"disk is full at {bench.folder(repo.branches['main'])}" in message
    ballast.unlink()
    assert_whole(bench.stage().folder, FILES)


def test_a_folder_that_cannot_be_written(bench: Bench, repo: Repo) -> None:
    (bench.root / "models").write_text("a file, not a folder")
    assert f"cannot write at {bench.root / 'models'}" in bench.refused()


# ----------------------------------------------------------------------------------------- progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def feed(stream: io.StringIO) -> None:
    with Progress(stream, every_s=0).bar("org/name", 100 * MB, done=20 * MB) as bar:
        for _ in range(4):
            bar.update(20 * MB)


def test_progress_is_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    feed(stream)
    first, *_, last = stream.getvalue().splitlines()
    assert first.startswith("org/name: 20.0MB of 100MB, ") and first.endswith(" left")
    assert last.startswith("org/name: 100MB of 100MB, ")
    assert "\r" not in stream.getvalue() and "\n\n" not in stream.getvalue()


def test_progress_is_one_updating_line_on_a_terminal() -> None:
    stream = Terminal()
    feed(stream)
    assert stream.getvalue().count("\n") == 1
    assert "\rorg/name:  20%" in stream.getvalue() and "\rorg/name: 100%" in stream.getvalue()


def test_staging_shows_need_and_progress(bench: Bench, repo: Repo) -> None:
    bench.stage()
    first, *_, last, _ = bench.log.getvalue().splitlines()
    assert re.match(rf"{NAME}: main is [0-9a-f]{{40}}: 3 files, 2 MB; to fetch: 3 files, 2 MB; free at .*: ", first)
    assert last.startswith(f"{NAME}: checking: 2.00MB of 2.00MB, ")
    fetched = [line for line in bench.log.getvalue().splitlines() if line.startswith(f"{NAME}: 2.00MB of 2.00MB, ")]
    assert fetched, "bytes are counted once"


# --------------------------------------------------------------------------------------------- lock


def test_lock_is_sorted_stable_and_read_back(tmp_path: Path) -> None:
    lock = ModelLock(tmp_path / "config" / "models.lock.yaml")
    number_like = "1234567890" * 2 + "e" + "1234567890" + "123456789"  # YAML would read this one as a float
    lock.pin("z/z", "main", "f" * 40, files=1, bytes_=1)
    lock.pin("a/a", "main", number_like, files=2, bytes_=20)
    assert lock.commit("a/a", "main") == number_like
    assert lock.commit("a/a", "other") is None
    assert lock.commit("a/a", "c" * 40) == "c" * 40
    lock.staged("a/a", "main")
    text = lock.path.read_text()
    assert text.index("a/a@main") < text.index("z/z@main")
    lock.pin("a/a", "main", number_like, files=2, bytes_=20)
    lock.staged("a/a", "main")
    assert lock.path.read_text() == text
    assert [path.name for path in lock.path.parent.iterdir()] == ["models.lock.yaml"]


def test_a_truncated_lock_is_one_line_or_pins_less_but_nothing_else(tmp_path: Path) -> None:
    lock = ModelLock(tmp_path / "models.lock.yaml")
    for name, commit in (("a/a", "1234567890" * 4), ("b/b", "0e" * 20)):
        lock.pin(name, "main", commit, files=2, bytes_=20)
    whole, pins, refused = lock.path.read_bytes(), lock.read(), 0
    for length in range(len(whole)):
        lock.path.write_bytes(whole[:length])
        try:
            assert all(pins[key].commit == pin.commit for key, pin in lock.read().items())
        except ConfigError as error:
            refused += 1
            assert str(lock.path) in str(error) and "\n" not in str(error)
    assert refused > 150


def test_pins_set_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "models.lock.yaml"
    threads = [
        threading.Thread(target=lambda n=n: ModelLock(path).pin(f"o/m{n}", "main", f"{n:040x}", files=1, bytes_=1))
        for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(ModelLock(path).read()) == sorted(f"o/m{n}@main" for n in range(16))


# ------------------------------------------------------------------------------------------- a whole study


def hub_study(tmp_path: Path, *names: str, **more: Any) -> Config:
    """A study that asks for a model of each of these repositories of ``org``."""
    block = {"fix": {"batch": 1, "input_tokens": 8, "output_tokens": 4}, "cross": {"model": list(names)}}
    config = studies.folder(tmp_path, {"x": {"blocks": [block], **more}}, models=tmp_path / "models")
    for name in names:
        studies.random_model(config, name)
        spec = studies.read(config / f"models/{name}.yaml")
        studies.write(config / f"models/{name}.yaml", spec | {"source": {"hub": {"hub": f"org/{name}"}}})
    return Config(config)


def test_a_repository_that_refuses_does_not_stop_the_others(
    tmp_path: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    for name in ("closed", "open"):
        server.repo(f"org/{name}").push(FILES)
    server.repo("org/closed").gated = True
    config = hub_study(tmp_path, "closed", "missing", "open")
    with pytest.raises(StageError, match=r"study test: 2 of 3 "):
        stage_study(config, "test")
    out, err = capsys.readouterr()
    assert "1 models staged (0 written, 1 fetched, 0 already there)" in out
    assert err.startswith("3 models to fetch, about ") and f"free at {tmp_path}:" in err.splitlines()[0]
    end = err.splitlines()[-2:]
    assert "org/closed: gated" in end[0] and "token" in end[0]
    assert "not staged: org/missing: no such repository" in end[1]
    assert len(list((tmp_path / "models/org--open").glob("*/moebench-stage.json"))) == 2, "the branch links to it"


def test_an_environment_that_staging_needs_is_asked_for_before_anything_is_fetched(
    tmp_path: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    server.repo("org/open").push(FILES)
    task = {"fix": {"model": "tiny-llava-moe-s"}, "tasks": ["realworldqa"]}
    config = hub_study(tmp_path, "open", accuracy={"test": [task]})
    config.instead |= {"environments": str(tmp_path / "none"), "data": str(tmp_path / "data")}
    with pytest.raises(StageError, match=r"none/vlmeval/bin/python: .*envs/build.py vlmeval"):
        stage_study(config, "test")
    assert not server.requests
