"""What users get wrong in the configuration: one line that names file, value and remedy, and nothing is written."""

import re

import pytest

import studies
from moebench.commands import cli
from moebench.commands.planning import make_plan
from moebench.config import Config, Experiment
from moebench.errors import ConfigError
from moebench.plan.file import read_plan
from studies import ROOT

FIX = {"model": "tiny-mixtral", "batch": 4, "input_tokens": 16, "output_tokens": 8}


def replaced(file, old, new):
    """A change to the text of a file of the folder."""

    def touch(config):
        path = config / file
        text = path.read_text()
        assert old in text, text
        path.write_text(text.replace(old, new, 1))

    return touch


def knob(**changes):
    """A change to the settings of the experiment's only cell."""

    def touch(config):
        path = config / "experiments" / "x.yaml"
        data = studies.read(path)
        data["grid"]["test"][0]["fix"] |= changes
        studies.write(path, data)

    return touch


def grid(blocks):
    return lambda config: studies.write(config / "experiments" / "x.yaml", studies.experiment("x", blocks))


def written(file, data):
    return lambda config: (config / file).write_bytes(data)


def locks(config):
    """A project around the folder: with the locks of two environments."""
    for name in ("vllm-cpu", "vllm-cuda"):
        (config.parent / "envs").mkdir(exist_ok=True)
        (config.parent / "envs" / f"{name}.lock").write_text("vllm==0.32.0\n")


OTHER_ENGINE = """engines:
  other: {name: transformers, version: 5.19.0, environment: vllm-gpu}
experiments:"""
STUDY, EXPERIMENT, MODEL, HARDWARE = (
    "studies/test.yaml", "experiments/x.yaml", "models/tiny-mixtral.yaml", "hardware/local-cpu.yaml"
)  # fmt: skip

# change, file named, words of the message
MISTAKES = {
    # misspelt keys at any depth
    "key of the root": (replaced("config.yaml", "study:", "studdy:"), "config.yaml", ["'studdy'", "'study'?"]),
    "key of a study": (replaced(STUDY, "hardware:", "hardwear:"), STUDY, ["'hardwear'", "did you mean 'hardware'?"]),
    "key of the engine": (
        replaced(STUDY, "version:", "versoin:"), STUDY, ["'versoin' in engine", "did you mean 'version'?"]),
    "key of the protocol": (replaced(STUDY, "repeats:", "repeat:"), STUDY, ["'repeat' in protocol", "'repeats'?"]),
    "key of the jobs": (replaced(STUDY, "pack_minutes", "pack_minuets"), STUDY, ["in jobs", "'pack_minutes'?"]),
    "default": (replaced(STUDY, "eager:", "eagre:"), STUDY, ["defaults", "unknown knob 'eagre'", "'eager'?"]),
    "key of an experiment": (replaced(EXPERIMENT, "question:", "queston:"), EXPERIMENT, ["'queston'", "'question'?"]),
    "key of a block": (grid([{"fixed": FIX}]), EXPERIMENT, ["'fixed' in grid.test.0", "did you mean 'fix'?"]),
    "knob": (knob(bacth=4), EXPERIMENT, ["grid.test[0]: fix", "unknown knob 'bacth'", "did you mean 'batch'?"]),
    "key of a model": (replaced(MODEL, "source:", "sources:"), MODEL, ["'sources'", "did you mean 'source'?"]),
    "key of the experts": (
        replaced(MODEL, "top_k:", "topk:"), MODEL, ["'topk' in architecture.experts", "did you mean 'top_k'?"]),
    "key of the hardware": (replaced(HARDWARE, "kind:", "kinds:"), HARDWARE, ["'kinds'", "did you mean 'kind'?"]),
    # names
    "unknown model": (
        knob(model="tiny-mixtrl"), EXPERIMENT, ["unknown model 'tiny-mixtrl'", "did you mean 'tiny-mixtral'?"]),
    "unknown full-size model": (
        replaced(MODEL, "variant_of: mixtral-8x7b", "variant_of: mixtral-8x77b"), MODEL,
        ["variant_of: unknown model 'mixtral-8x77b'; did you mean 'mixtral-8x7b'?"]),
    "unknown environment": (
        lambda c: (locks(c), replaced(STUDY, "environment: vllm-cpu", "environment: vllm-cpuu")(c)), STUDY,
        ["engine.environment: there is no envs/vllm-cpuu.lock; did you mean 'vllm-cpu'?"]),
    "unknown environment of another engine": (
        lambda c: (locks(c), replaced(STUDY, "experiments:", OTHER_ENGINE)(c)), STUDY,
        ["engines.other.environment: there is no envs/vllm-gpu.lock", "'vllm-"]),
    "unknown draft": (knob(draft_model="qwen3-06b", draft_tokens=2), EXPERIMENT, ["'qwen3-06b'", "'qwen3-0.6b'?"]),
    "unknown study": (replaced("config.yaml", "study: test", "study: tset"), "config.yaml", ["'tset'", "'test'?"]),
    "unknown reference": (replaced(STUDY, "scale:", "reference: tset\nscale:"), STUDY, [": reference: ", "'test'?"]),
    "unknown experiment": (replaced(STUDY, "- x", "- xy"), STUDY, ["unknown experiment 'xy'", "'x'?"]),
    "unknown hardware": (replaced(STUDY, "local-cpu", "local-cup"), STUDY, ["'local-cup'", "'local-cpu'?"]),
    "name that is not the file's": (replaced(MODEL, "name: tiny-mixtral", "name: other"), MODEL, ["'other'", "equal"]),
    "unknown family": (
        replaced(MODEL, "family: mixtral", "family: mixtrl"), MODEL, ["unknown family 'mixtrl'", "'mixtral'?"]),
    # grids
    "no grid": (grid([]), EXPERIMENT, ["grid.test", "is empty", "at least one block"]),
    "no grid for the scale": (replaced(STUDY, "scale: test", "scale: tset"), EXPERIMENT, ["'tset'", "'test'?"]),
    "axis without values": (grid([{"fix": FIX, "cross": {"top_k": []}}]), EXPERIMENT, ["'top_k' has no values"]),
    "axis that is no list": (grid([{"fix": FIX, "cross": {"top_k": 2}}]), EXPERIMENT, ["top_k is 2", "list"]),
    "no model": (grid([{"fix": {"batch": 1}}]), EXPERIMENT, ["model is missing"]),
    "knob set twice": (grid([{"fix": FIX, "cross": {"batch": [1]}}]), EXPERIMENT, ["'batch' is set twice"]),
    # values
    "batch in quotes": (knob(batch="16"), EXPERIMENT, ["batch is '16'", "integer"]),
    "batch with a point": (knob(batch=16.0), EXPERIMENT, ["batch is 16.0", "integer"]),
    "batch that is a truth value": (knob(batch=True), EXPERIMENT, ["batch is True", "integer"]),
    "batch of zero": (knob(batch=0), EXPERIMENT, ["batch is 0", "greater than or equal to 1"]),
    "batch that is a list": (knob(batch=[1, 2]), EXPERIMENT, ["fix: batch is [1, 2]", "put it under cross"]),
    "negative length": (knob(output_tokens=-1), EXPERIMENT, ["output_tokens is -1"]),
    "no warm-up": (replaced(STUDY, "warmup: 1", "warmup: 0"), STUDY, ["protocol.warmup is 0"]),
    "unknown precision": (knob(quantization="fp7"), EXPERIMENT, ["quantization is 'fp7'", "'fp8'"]),
    "ratio in percent": (knob(pruning="inter", prune_ratio=12.5), EXPERIMENT, ["prune_ratio is 12.5", "less than 1"]),
    "peak without a source": (
        replaced(HARDWARE, "peak: {}", "peak: {bfloat16: {flops_per_s: 1.0}}"), HARDWARE, ["reference is missing"]),
    "two sources": (replaced(MODEL, "random_init:", "hub: {hub: a/b}\n  random_init:"), MODEL, ["exactly one of hub"]),
    # what cannot be
    "top-k above the experts": (
        knob(top_k=9), EXPERIMENT, ["top_k 9 is more than the 8 experts of tiny-mixtral; set it to 8 or less"]),
    "top-k above the experts left": (knob(top_k=4, experts=2), EXPERIMENT, ["top_k 4 is more than the 2 experts"]),
    "top-k of a dense model": (
        knob(model="qwen3-0.6b", top_k=2), EXPERIMENT, ["top_k 2: qwen3-0.6b is dense, it has no experts; leave it"]),
    "heads that do not divide": (
        replaced(MODEL, "kv_heads: 2", "kv_heads: 3"), MODEL,
        ["architecture.attention", "heads 8 is not a multiple of kv_heads 3", "a divisor of 8"]),
    "top-k of the registry": (replaced(MODEL, "top_k: 2", "top_k: 9"), MODEL, ["top_k 9 is more than the 8 experts"]),
    "longer than the model": (
        knob(input_tokens=4000, output_tokens=97, max_model_len=8192), EXPERIMENT,
        ["4000 + 97 tokens", "max_positions of tiny-mixtral, 4096; ask for fewer"]),
    "longer than the engine": (
        knob(input_tokens=250), EXPERIMENT, ["250 + 8 tokens", "max_model_len, 256; ask for fewer, or raise it"]),
    "engine longer than the model": (
        knob(max_model_len=8192), EXPERIMENT, ["max_model_len 8192", "max_positions of tiny-mixtral, 4096", "or less"]),
    "batch above the engine's": (knob(batch=17), EXPERIMENT, ["batch 17 is more than max_num_seqs 16"]),
    "images without a size": (
        knob(model="tiny-llava-moe-s", images=1), EXPERIMENT, ["images 1", "image_size is missing", "pixels"]),
    "a size without images": (knob(image_size=56), EXPERIMENT, ["image_size 56 without images", "both or neither"]),
    "longer than the engine with its images": (
        knob(model="tiny-llava-moe-s", images=2, image_size=112, input_tokens=73), EXPERIMENT,
        ["73 + 8 tokens and 176 of 2 images of 112 x 112 pixels are more than max_model_len, 256", "tiny-llava-moe-s"]),
    "images for a text model": (knob(images=1, image_size=224), EXPERIMENT, ["images 1", "tiny-mixtral accepts none"]),
    "pruning without a ratio": (knob(pruning="inter"), EXPERIMENT, ["'inter' with prune_ratio 0.0", "both or neither"]),
    "method without pruning": (knob(prune_by="reap"), EXPERIMENT, ["'reap' without pruning", "both or neither"]),
    "draft without tokens": (knob(draft_model="qwen3-0.6b"), EXPERIMENT, ["draft_tokens 0", "both or neither"]),
    "checkpoint that is not there": (knob(weights="checkpoint"), EXPERIMENT, ["no trained checkpoint", "random_init"]),
    "random weights of a trained model": (
        knob(model="mixtral-8x7b", weights="random_init"), EXPERIMENT, ["trained checkpoint", "checkpoint or dummy"]),
    "another shape of a trained model": (
        knob(model="mixtral-8x7b", experts=16), EXPERIMENT, ["cannot change", "set weights: dummy"]),
    "experts of a dense model": (knob(model="qwen3-0.6b", experts=4), EXPERIMENT, ["dense model has no experts"]),
    "live top-k in a compiled engine": (
        lambda c: (replaced(STUDY, "live_top_k: auto", "live_top_k: true")(c), knob(eager=False)(c)), EXPERIMENT,
        ["live_top_k is true", "eager: true"]),
    "CPU without a KV cache size": (knob(kv_cache_mb=None), EXPERIMENT, ["kv_cache_mb is missing", "e.g."]),
    # files
    "duplicate key": (
        replaced(STUDY, "scale: test", "scale: test\nscale: tiny"), STUDY, ["line", "'scale' is given twice"]),
    "duplicate knob": (
        written(EXPERIMENT, b"name: x\ntitle: X\nquestion: Q\ngrid:\n  test:\n  - fix: {batch: 1, batch: 2}\n"),
        EXPERIMENT, ["line 6", "'batch' is given twice"]),
    "broken YAML": (written(EXPERIMENT, b"name: x\ngrid: [1, 2\nfoo: {"), EXPERIMENT, ["line"]),
    "tab in YAML": (written(EXPERIMENT, b"name: x\n\ttitle: y\n"), EXPERIMENT, ["line 2", "tab"]),
    "control character": (written(EXPERIMENT, b"name: x\x00\n"), EXPERIMENT, ["not valid YAML"]),
    "another encoding": (written(EXPERIMENT, "title: \u00e9\n".encode("latin-1")), EXPERIMENT, ["save it as UTF-8"]),
    "only a comment": (written(MODEL, b"# later\n"), MODEL, ["the file is empty"]),
    "key that is a list": (written(EXPERIMENT, b"? [a]\n: b\n"), EXPERIMENT, ["line 1", "['a'] is not a word"]),
    "empty file": (written(STUDY, b""), STUDY, ["the file is empty; fill it or remove it"]),
    "list instead of a mapping": (written(STUDY, b"- a\n- b\n"), STUDY, ["expected a mapping", "list"]),
    "folder instead of a file": (
        lambda c: ((c / EXPERIMENT).unlink(), (c / EXPERIMENT).mkdir()), EXPERIMENT, ["cannot be read"]),
    "missing file": (
        lambda c: (c / "config.yaml").unlink(), "config.yaml",
        ["no such file; run this in the project's folder", "--config"]),
    "broken lock of models": (
        lambda c: (written("models.lock.yaml", b"a/b@main: {commit: short, files: 1, bytes: 1}")(c),
                   knob(model="mixtral-8x7b")(c)), "models.lock.yaml", ["commit", "'short'"]),
}  # fmt: skip


@pytest.fixture
def config(tmp_path):
    return studies.folder(tmp_path, {"x": [{"fix": FIX}]})


def planned(config):
    folder = Config(config)
    return make_plan(folder, folder.root().study)


def test_the_folder_is_right_before_it_is_made_wrong(config):
    assert len(planned(config)["cells"]) == 1


def test_environments_are_those_of_the_project_around_the_folder(config):
    replaced(STUDY, "environment: vllm-cpu", "environment: mine")(config)
    assert len(planned(config)["cells"]) == 1, "no project around it"
    locks(config)
    (config.parent / "envs" / "mine.lock").touch()
    assert len(planned(config)["cells"]) == 1


def test_built_environments_are_where_the_variable_says_unless_the_configuration_does(config, monkeypatch):
    monkeypatch.delenv("MOEBENCH_ENVS", raising=False)
    assert Config(config).root().environments == ".envs"
    monkeypatch.setenv("MOEBENCH_ENVS", "/built")
    assert Config(config).root().environments == "/built"
    (config / "config.yaml").write_text("study: test\nenvironments: mine\n")
    assert Config(config).root().environments == "mine"
    assert Config(config, environments="asked").root().environments == "asked"


def test_several_mistakes_are_counted(config):
    replaced(STUDY, "repeats: 2", "repeats: 0")(config)
    replaced(STUDY, "seed: 1", "seed: -1")(config)
    with pytest.raises(ConfigError, match=r"protocol\.repeats is 0: .* \(and 1 more\)$"):
        planned(config)


def test_numbers_may_be_written_as_people_do(config):
    replaced(HARDWARE, "memory_bytes: null", "memory_bytes: 80e9")(config)
    assert Config(config).hardware("local-cpu").memory_bytes == 80e9


def test_a_wrong_file_that_the_study_does_not_use_does_not_matter(config):
    written("models/other.yaml", b"{{{")(config)
    assert len(planned(config)["cells"]) == 1


def snapshot(folder):
    return {p.relative_to(folder): p.stat().st_mtime_ns for p in folder.rglob("*")}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_file_value_and_remedy(config, tmp_path, mistake, monkeypatch, capsys):
    """The command ends with 2, and nothing is written."""
    touch, file, words = MISTAKES[mistake]
    touch(config)
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(["plan", "--write", "results/plan/test.json", "--config", "config"])
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(f"moebench plan: config/{file}") and len(line) < 500, line
    assert [word for word in words if word not in line] == [], line
    assert snapshot(tmp_path) == before


def test_an_empty_study_on_the_command_line_is_not_the_default_one(config, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["plan", "--config", str(config), "--study", ""])
    said = f"moebench plan: --study: the name is empty; name one of {config}/studies, or leave --study out\n"
    assert (end.value.code, capsys.readouterr().err) == (2, said)


def test_an_unknown_study_on_the_command_line(config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(["plan", "--config", str(config), "--study", "tst"])
    said = "moebench plan: --study, --config study=: unknown study 'tst'; did you mean 'test'?\n"
    assert (end.value.code, *capsys.readouterr()) == (2, "", said)
    (tmp_path / "note.md").write_text("# no plan\n")
    with pytest.raises(ConfigError, match=r"note\.md: .*moebench plan --write"):
        read_plan(tmp_path / "note.md")


# ------------------------------------------------------------------------------ what the experiments of the project say

STUDIES = ("tiny", "tiny-full", "paper")


@pytest.mark.parametrize("study", STUDIES)
def test_assumptions_are_about_the_study_that_shows_them(study):
    """A study on a CPU assumes nothing about the paper's GPUs, and the paper's nothing about small models."""
    root = Config(ROOT / "config")
    chosen = root.study(study)
    told = [(name, text) for name in chosen.experiments for text in root.experiment(name).assumed(chosen.scale)]
    assert len(told) > 20
    foreign = r"\btiny\b" if study == "paper" else r"GPUs?\b are used|H100s|four 80 GB|two each|80 GB GPU|CS-3|\bH100\b"
    assert [(name, text) for name, text in told if re.search(foreign, text)] == []


def test_an_assumption_of_some_scales_is_left_out_of_others():
    made = Experiment.model_validate(
        {"name": "x", "title": "T", "question": "Q", "grid": {"a": [{"fix": {"batch": 1}}]},
         "assumptions": ["always", {"scales": ["a", "b"], "text": "sometimes"}]}
    )  # fmt: skip
    assert made.assumed("a") == ["always", "sometimes"] and made.assumed("c") == ["always"]


def test_a_figure_and_its_prediction_show_the_same_metrics():
    """What the cost model predicts is the slowest request's first token, so figures show that one, not the mean."""
    root = Config(ROOT / "config")
    for study in ("tiny", "tiny-full"):
        for name in root.study(study).experiments:
            experiment = root.experiment(name)
            for figure in experiment.figures:
                assert "ttft_s" not in figure.y, f"{name}: {figure.id}"
