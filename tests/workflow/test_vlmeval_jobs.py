"""The real VLMEvalKit: right scores from known answers, refusals, and a job whose real server dies half way."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

import studies
from moebench import accuracy
from moebench.accuracy import vlm_fixtures, vlmeval_results
from moebench.accuracy.driver import Evaluator
from moebench.accuracy.lm_eval_results import Unsound
from moebench.accuracy.vlmeval_harness import Harness
from moebench.accuracy.vlmeval_process import FOUND, MODEL
from moebench.config import Config
from moebench.measure import manifest, records
from moebench.storage import staged
from project import ENGINE, HANG_S, ROOT, moebench
from project import copy as copy_project

KEY = "a-key-of-this-test"
TASKS = ("mme", "textvqa", "ai2d", "docvqa", "mmmu", "infovqa", "realworldqa", "scienceqa")


class Service:
    """A chat service that looks at the image and the question and knows the fixtures; or answers as it is told.

    ``answer``: given to all; ``refuse``: questions about images that contain this word fail with HTTP 500.
    """

    def __init__(self) -> None:
        self.rows = {name: vlm_fixtures.rows(name) for name in vlm_fixtures.NAMES}
        self.name, self.answer, self.refuse, self.keys = "", "", "", set()
        self.seen: list[dict[str, Any]] = []

    def reply(self, asked: dict[str, Any]) -> str | None:
        """The answer; None: a failure of the service."""
        self.seen.append({k: asked[k] for k in ("model", "max_tokens", "temperature")})
        parts = asked["messages"][0]["content"]
        text = " ".join(p["text"] for p in parts if p["type"] == "text")
        if self.refuse and self.refuse in text:
            return None
        if self.answer:
            return self.answer
        data = next(p["image_url"]["url"] for p in parts if p["type"] == "image_url").partition(",")[2]
        image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
        words = [r for r in self.rows[self.name] if r["question"].replace("<image 1>", "").strip() in text]
        right = str(min(words, key=lambda row: distance(image, row))["answer"])
        return right if not right.startswith("[") else str(eval(right)[0])


def distance(image: Image.Image, row: dict[str, Any]) -> float:
    """How far an image is from what a row draws."""
    drawn = Image.open(io.BytesIO(vlm_fixtures.png(row["shape"])))
    # The harness sends JPEG, and no image smaller than 100 pixels.
    return sum(ImageStat.Stat(ImageChops.difference(image.resize(drawn.size), drawn)).sum)


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[Service, str]]:
    """The service and its base URL."""
    known = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            known.keys.add(self.headers["Authorization"])
            text = known.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            body = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()
            self.send_response(500 if text is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield known, f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """The harness's process, in the environment beside the engine's."""
    place = tmp_path_factory.mktemp("harness")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.executable", str(ENGINE))
        patch.setenv("PYTHONPATH", str(ROOT / "workflow"))
        patch.setenv("LMUData", "/nowhere")
        one = Harness(place)
    yield one
    one.process.stdin.close()
    one.process.wait(timeout=HANG_S)
    one.process.stdout.close()
    one.log_file.close()


def ask(
    harness: Harness, url: str, name: str, place: Path, limit: int | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Ask a task of config/tasks on fixtures, in a new work folder; its rows and samples."""
    spec = Config(ROOT / "config").task(name)
    folder, work = place / "data" / name, place / "work"
    vlm_fixtures.write(spec.task, folder)
    before = sorted(folder.rglob("*"))
    work.mkdir()
    data = {"id": spec.task, "source": "fixtures", "revision": vlm_fixtures.revision(spec.task), "path": str(folder)}
    task = spec.model_dump() | {"data": data, "judge": "exact_matching", "harness_version": "0.0.20", "max_tokens": 9}
    harness.refuse(task)
    harness.send(
        {"task": task, "limit": limit, "work": str(work), "url": url, "key": KEY, "parallel": 8, "timeout_s": HANG_S}
    )
    assert harness.reply(180) == {"exit": 0}, harness.last_words()
    assert sorted(folder.rglob("*")) == before, "nothing is written into the mirror"
    assert not any(KEY.encode() in path.read_bytes() for path in work.rglob("*") if path.is_file())
    assert (work / MODEL / f"{MODEL}_{spec.task}.tsv").exists()
    return vlmeval_results.rows_of(json.loads((work / FOUND).read_text()), task, limit)


def test_the_tables_are_those_that_the_harness_expects(harness: Harness) -> None:
    known = harness.ready()
    assert known["version"] == "0.0.20"
    for name in TASKS:
        task = Config(ROOT / "config").task(name)
        assert known["md5"][task.task] == task.data.md5
    other = {"task": "MME", "harness_version": "0.0.20", "data": {"source": "https://x", "revision": "0" * 32}}
    with pytest.raises(Unsound, match="it would fetch its own"):
        harness.refuse(other)
    with pytest.raises(NotImplementedError, match="no data set 'MMEE'"):
        harness.refuse(other | {"task": "MMEE"})


@pytest.mark.parametrize("name", TASKS)
def test_right_answers_score_one(harness: Harness, service: tuple[Service, str], name: str, tmp_path: Path) -> None:
    known, url = service
    known.name, known.answer, known.refuse, known.seen = Config(ROOT / "config").task(name).task, "", "", []
    rows, samples = ask(harness, url, name, tmp_path)
    asked = 56 if name == "mme" else vlm_fixtures.ROWS
    assert len(samples) == len(known.seen) == asked
    assert known.seen[0] == {"model": MODEL, "max_tokens": 9, "temperature": 0} and known.keys == {f"Bearer {KEY}"}
    by_name = {row["metric"]: row for row in rows}
    if name == "mme":
        assert [by_name[m]["value"] for m in ("points", "perception", "reasoning")] == [2800, 2000, 800]
    assert rows[0]["value"] == pytest.approx(1.0)
    assert rows[0]["n"] == (4 if name == "mmmu" else asked), "of MMMU only the validation split counts"


def test_a_second_run_asks_again_and_words_that_tables_take_for_nothing_stay_words(
    harness: Harness, service: tuple[Service, str], tmp_path: Path
) -> None:
    known, url = service
    known.name, known.refuse = "AI2D_TEST", ""
    for number, answer in enumerate(("=1+1", "A")):
        known.answer, known.seen = answer, []
        rows, samples = ask(harness, url, "ai2d", tmp_path / str(number), limit=4)
        assert len(known.seen) == 4, "no answer of an earlier run is taken"
        assert {s["prediction"] for s in samples} == {answer}
        right = sum(row["answer"] == answer for row in vlm_fixtures.rows("AI2D_TEST")[:4])
        assert rows[0]["value"] == right / 4 and rows[0]["n"] == 4


@pytest.mark.parametrize(("answer", "refuse"), [("", "bar?"), (" ", "")])
def test_a_row_without_an_answer_is_said(
    harness: Harness, service: tuple[Service, str], answer: str, refuse: str, tmp_path: Path
) -> None:
    known, url = service
    known.name, known.answer, known.refuse = "AI2D_TEST", answer, refuse
    lost = sum("bar?" in row["question"] for row in known.rows["AI2D_TEST"]) if refuse else 6
    assert lost
    with pytest.raises(Unsound, match=f"{lost} of the 6 rows of AI2D_TEST have no answer"):
        ask(harness, url, "ai2d", tmp_path)


DUMP = """
import sys
from pathlib import Path
from moebench.accuracy import vlmeval_process
for name, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    vlmeval_process.accept(name, Path(folder) / f"{name}.tsv")
    vlmeval_process.dump(name, folder)
"""


def test_the_harness_dumps_the_images_that_fixtures_bring(tmp_path: Path) -> None:
    asked, before = [], {}
    for name in ("MME", "RealWorldQA"):
        folder = tmp_path / name
        vlm_fixtures.write(name, folder)
        images = {path: path.read_bytes() for path in folder.rglob("*.png")}
        for path in images:
            path.unlink()
        before |= images
        asked += [name, str(folder)]
    python = ENGINE.parents[2] / "vlmeval" / "bin" / "python"
    command = [str(python), "-c", DUMP, *asked]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT / "workflow")})
    assert {path for name in ("MME", "RealWorldQA") for path in (tmp_path / name).rglob("*.png")} == set(before)
    for path, image in before.items():
        drawn = ImageChops.difference(Image.open(path).convert("RGB"), Image.open(io.BytesIO(image)))
        assert not drawn.getbbox()


# ------------------------------------------------------------------------------------ on the real vLLM


def server_of(worker: int) -> int:
    """Process of the server that a worker started: the only child in a session of its own."""
    said = subprocess.run(["ps", "-o", "pid=,sid=", "--ppid", str(worker)], capture_output=True, text=True).stdout
    ((server, _),) = [line.split() for line in said.splitlines() if len(set(line.split())) == 1]
    return int(server)


def test_a_server_that_dies_half_way_fails_its_cell_and_the_rest_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = {"tasks": ["ai2d", "textvqa", "scienceqa"], "data": "fixtures", "limit": 4, "max_tokens": 4,
             "fix": {"model": "tiny-llava-moe-s"}}  # fmt: skip
    speed = [{"fix": {"model": "tiny-llava-moe-s", "batch": 1, "input_tokens": 8, "output_tokens": 8}}]
    place = copy_project(tmp_path / "project")
    studies.folder(place, {"a": {"blocks": speed, "accuracy": {"test": [block]}}},
                   defaults=studies.TINY | {"max_model_len": 512})  # fmt: skip
    moebench(place, "stage", "--study", "test")
    moebench(place, "plan", "--study", "test", "--write", "plan.json")
    monkeypatch.chdir(place)
    plan = json.loads((place / "plan.json").read_text())
    part = accuracy.view(plan, "vlmeval")
    ((job, spec),) = part["jobs"].items()
    (engine,) = spec["engines"]
    first, second, third = part["engines"][engine]["cells"]
    folder, said = accuracy.folder(place / "results", "vlmeval"), []
    killers: list[threading.Thread] = []

    def kill(driver: Evaluator, server: int) -> None:
        name = part["cells"][f"{engine}/{second}"]["task"]["task"]
        while not list(driver.scratch.glob(f"{name}-*")):  # it is being asked
            time.sleep(0.05)
        time.sleep(1)
        os.kill(server, signal.SIGKILL)

    def run() -> bool:
        driver = Evaluator(plan, "vlmeval", Path("results"), Path("logs/a.log"), lambda text: say(text), str(ENGINE))

        def say(text: str) -> None:
            said.append(text)
            if not killers and text.startswith("[1/3]"):
                server = server_of(driver.worker.pid)
                os.kill(server, signal.SIGSTOP)  # so that it is half way when it ends
                killers.append(threading.Thread(target=kill, args=(driver, server)))
                killers[0].start()

        try:
            return driver.run_job(job)
        finally:
            driver.close()
            for killer in killers:
                killer.join()

    assert not run(), said
    found = {cell: records.load(records.cell_path(folder, engine, cell)) for cell in (first, second, third)}
    assert [r["status"] for r in found.values()] == ["ok", "crashed", "ok"]
    assert "the server ended with -9 while it was asked" in found[second]["reason"]
    assert manifest.read(folder, job) is None
    good = found[first]
    assert good["provenance"]["versions"]["ms-vlmeval"] == "0.0.20" and good["task"]["judge"] == "exact_matching"
    log = folder / "samples" / engine / good["samples"]["file"]
    assert good["samples"]["rows"] == good["results"][0]["n"] == 4 and log.stat().st_size == good["samples"]["bytes"]
    again = Evaluator(plan, "vlmeval", Path("results"), Path("logs/a.log"), said.append, str(ENGINE))
    assert again.pending(engine) == [second], "only what is missing"
    again.close()
    assert all(staged.check(Path(c["task"]["data"]["path"]), full=True) == [] for c in part["cells"].values())
