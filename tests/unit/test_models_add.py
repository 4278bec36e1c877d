"""``moebench models add``: from the hub and from a folder, what it writes and prints, and what it refuses; families
without code; models on a shared disk."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest

import studies
from hubserver import HubServer
from moebench.architectures.hf_config import disagreements
from moebench.commands.cli import main
from moebench.commands.planning import make_plan
from moebench.commands.stage import stage_study
from moebench.config import Config, EngineKnobs
from moebench.config.lockfile import ModelLock
from moebench.cost import memory, params
from moebench.errors import ConfigError, StageError
from moebench.models.hubprogress import Progress
from moebench.models.shared import stage_shared
from moebench.plan.models import shared_folder, staged_model
from moebench.storage import staged
from published import CONFIGS
from studies import ROOT

SHIPPED = Config(ROOT / "config")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration folder with the families and no models."""
    shutil.copytree(ROOT / "config/families", tmp_path / "config/families")
    return tmp_path / "config"


def add(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["models", "add", *map(str, arguments)])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def folder(tmp_path: Path, name: str, config: dict, **files: object) -> Path:
    made = tmp_path / "disk" / name
    made.mkdir(parents=True)
    (made / "config.json").write_text(json.dumps(config))
    for file, content in files.items():
        (made / file.replace("__", ".")).write_text(json.dumps(content))
    return made


# ------------------------------------------------------------------------------------------------ adding


@pytest.mark.parametrize("name", CONFIGS)
def test_every_published_file_becomes_the_registrys_architecture(tmp_path, capsys, config, name):
    vision = SHIPPED.model(name).architecture.vision_parameters
    more = ("--vision-parameters", vision) if vision else ()
    code, out, err = add(capsys, folder(tmp_path, name, CONFIGS[name]), "--config", config, *more)
    assert (code, err) == (0, "")
    made = Config(config).model(name)
    ours = SHIPPED.model(name).architecture.model_copy(update={"max_positions": made.architecture.max_positions})
    assert made.architecture == ours
    assert f"{params.total_parameters(ours).total / 1e9:.2f} B" in out
    assert made.source.path == str(tmp_path / "disk" / name) and name in made.reference
    assert disagreements(made.architecture.as_dict(), CONFIGS[name]) == []


def test_from_the_hub_at_a_commit_with_the_index(tmp_path, capsys, config, monkeypatch):
    parameters = params.total_parameters(SHIPPED.model("qwen3-next-80b-a3b").architecture).total
    index = {"metadata": {"total_size": 2 * parameters}, "weight_map": {}}
    files = {"config.json": CONFIGS["qwen3-next-80b-a3b"] | {"num_nextn_predict_layers": 1},
             "model.safetensors.index.json": index}  # fmt: skip
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        repo = server.repo("Qwen/Qwen3-Next-80B-A3B-Instruct")
        commit = repo.push({name: json.dumps(content).encode() for name, content in files.items()})
        repo.push({"config.json": b"{}"}, branch="main")
        code, out, err = add(capsys, f"Qwen/Qwen3-Next-80B-A3B-Instruct@{commit}", "--config", config)
    assert (code, err) == (0, "")
    assert f"total      79.67 B   published {parameters / 1e9:.4g} B (+0.0%)" in out
    assert "published 3 B" in out and "not counted: the multi-token-prediction module" in out
    assert "24.6 kB per token, and 39.5 MB of state per sequence in 36 layers" in out
    made = Config(config).model("qwen3-next-80b-a3b-instruct")
    assert (made.source.hub.hub, made.source.hub.revision) == ("Qwen/Qwen3-Next-80B-A3B-Instruct", commit)
    assert made.published.total_parameters == parameters and made.published.active_parameters == 3e9
    assert commit[:12] in made.reference and "safetensors" in made.published.reference


def test_a_quantized_checkpoint_is_added_with_its_scheme(tmp_path, capsys, config, monkeypatch):
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        index = {"metadata": {"total_size": 65_248_815_744}}
        server.repo("openai/gpt-oss-120b").push(
            {"config.json": json.dumps(CONFIGS["gpt-oss-120b"]).encode(),
             "model.safetensors.index.json": json.dumps(index).encode()}
        )  # fmt: skip
        code, out, _ = add(capsys, "openai/gpt-oss-120b", "--config", config,
                           "--total", "116.8e9", "--active", "5.1e9", "--reference", "model card")  # fmt: skip
    assert code == 0 and "weights 65.25 GB in safetensors, 65.19 GB computed in mxfp4" in out
    assert "published 116.8 B (+0.0%)" in out and "published 5.1 B" in out
    made = Config(config).model("gpt-oss-120b")
    assert made.quantized["mxfp4"].hub == "openai/gpt-oss-120b" and made.published.reference == "model card"


def test_a_difference_from_the_safetensors_is_said(tmp_path, capsys, config):
    index = {"metadata": {"total_size": 2 * 110.5e9}}
    made = folder(tmp_path, "glm-4.5-air", CONFIGS["glm-4.5-air"])
    (made / "model.safetensors.index.json").write_text(json.dumps(index))
    code, out, _ = add(capsys, made, "--config", config)
    assert code == 0 and "differs by -3.3% from safetensors of" in out


REFUSED = {
    "another model type": ({"model_type": "kimi_linear"}, "model_type 'kimi_linear' belongs to no family; known: "),
    "a key missing": ({"hidden_size": None}, "config.json lacks hidden_size"),
    "linear layers": ({"linear_num_value_heads": 32}, "linear_num_value_heads: 32 cannot be expressed"),
    "a kind of layer": ({"layer_types": ["conv"] * 32}, "layer_types: 'conv' is unknown to the registry"),
    "a vision part": ({"vision_config": {"depth": 2}}, "give --vision-parameters N"),
    "a scheme": ({"quantization_config": {"quant_method": "hqq"}}, "quant_method 'hqq' is none of fp8, "),
    "heads": ({"num_key_value_heads": 5}, "heads 32 is not a multiple of kv_heads 5"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_expressed_is_refused_and_nothing_written(tmp_path, capsys, config, case):
    change, words = REFUSED[case]
    changed = {key: value for key, value in (CONFIGS["mixtral-8x7b"] | change).items() if value is not None}
    code, out, err = add(capsys, folder(tmp_path, "some", changed), "--config", config)
    assert (code, out, err.count("\n")) == (2, "", 1) and words in err
    assert not (config / "models").exists()


def test_facts_as_json(tmp_path, capsys, config):
    made = folder(tmp_path, "some-8x7B", CONFIGS["mixtral-8x7b"])
    code, out, _ = add(capsys, made, "--config", config, "--json", "--total", "46.7e9", "--reference", "its paper")
    found = json.loads(out)
    assert code == 0 and found["file"] == f"{config}/models/some-8x7b.yaml" and found["kv_bytes_per_token"] == 131072
    assert (found["total_parameters"], found["active_parameters"]) == (46702792704, 12879925248)
    assert found["published"]["total_parameters"] == 46.7e9 and found["published"]["reference"] == "its paper"


def test_a_window_in_all_layers_is_expressed(tmp_path, capsys, config):
    made = folder(tmp_path, "some", CONFIGS["mixtral-8x7b"] | {"sliding_window": 4096})
    assert add(capsys, made, "--config", config)[0] == 0
    attention = Config(config).model("some").architecture.attention
    assert (attention.window, attention.windowed_layers) == (4096, 32)


@pytest.mark.parametrize(
    ("source", "more", "words"),
    [("mixtral", (), "'mixtral' is not a model; give ORG/NAME"), ("/nowhere/at/all", (), "/at/all: no such folder"),
     ("a/b@@c", (), "'a/b@@c' is not a model"), ("a/b", ("--total", "1e9"), "--reference TEXT")],
)  # fmt: skip
def test_bad_arguments_are_one_line(capsys, config, source, more, words):
    code, _, err = add(capsys, source, "--config", config, *more)
    assert code == 2 and words in err and err.count("\n") == 1


def test_a_hub_that_is_not_there_and_a_repository_without_config(capsys, config, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    code, _, err = add(capsys, "org/name", "--config", config)
    assert code == 2 and "org/name: 127.0.0.1:9 cannot be reached" in err and err.count("\n") == 1
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        server.repo("org/name").push({"model.safetensors": b"x"})
        server.repo("org/text").push({"config.json": b"no json"})
        code, _, err = add(capsys, "org/name", "--config", config)
        assert code == 2 and "org/name: no config.json" in err
        code, _, err = add(capsys, "org/text", "--config", config)
        assert code == 2 and "org/text: config.json is not JSON" in err
        code, _, err = add(capsys, "org/none", "--config", config)
        assert code == 2 and "no such repository" in err


def test_a_file_that_is_there_is_kept_unless_asked(tmp_path, capsys, config):
    made = folder(tmp_path, "some", CONFIGS["mixtral-8x7b"])
    assert add(capsys, made, "--config", config)[0] == 0
    code, _, err = add(capsys, made, "--config", config)
    assert code == 2 and "some.yaml: already exists; give --replace" in err
    assert add(capsys, made, "--config", config, "--replace")[0] == 0
    assert add(capsys, made, "--config", config, "--name", "other")[0] == 0 and (config / "models/other.yaml").exists()


# ------------------------------------------------------------------------------------- families, no code


INVENTED = {
    "name": "otter", "model_type": "otter_moe", "engine_class": "OtterForCausalLM",
    "sizes": {
        "n_embd": "hidden_size", "n_layer": "layers", "n_dense": "dense_layers", "n_inner": "dense_ffn_size",
        "n_head": "attention.heads", "n_head_kv": "attention.kv_heads", "d_head": "attention.head_dim",
        "n_vocab": "vocab_size", "tie": "tied_embeddings", "moe_e": "experts.count", "moe_topk": "experts.top_k",
        "moe_inner": "experts.ffn_size",
    },
    "omitted": {"tie": True}, "facts": {"attention.qk_norm": "head"}, "shared": "count", "shared_key": "moe_shared",
    "reference": "invented",
}  # fmt: skip
OTTER = {
    "model_type": "otter_moe", "n_embd": 1024, "n_layer": 10, "n_dense": 2, "n_inner": 4096, "n_head": 16,
    "n_head_kv": 4, "d_head": 64, "n_vocab": 50000, "moe_e": 32, "moe_topk": 4, "moe_inner": 512, "moe_shared": 1,
    "max_position_embeddings": 8192,
}  # fmt: skip


def test_a_family_with_other_keys_needs_a_file_and_no_code(tmp_path, capsys, config):
    studies.write(config / "families/otter.yaml", INVENTED)
    assert add(capsys, folder(tmp_path, "otter-1", OTTER), "--config", config)[0] == 0
    made = Config(config).model("otter-1")
    attention = 2 * 1024 * (16 + 4) * 64
    layer = attention + 2 * 1024 + 2 * 64
    total = 10 * layer + 2 * 3 * 1024 * 4096 + 8 * (33 * 3 * 1024 * 512 + 32 * 1024) + 50000 * 1024 + 1024
    assert params.total_parameters(made.architecture).total == total
    engine = EngineKnobs(model="otter-1")
    assert memory.memory_per_gpu(made.architecture, engine).kv_bytes_per_token == 10 * 2 * 4 * 64 * 2
    architecture = made.architecture.as_dict()
    assert disagreements(architecture, OTTER) == []
    assert disagreements(architecture, OTTER | {"moe_e": 64}) == ["moe_e: registry 32, config.json 64"]
    json.dumps(architecture)  # as a plan carries it, to an engine's environment


@pytest.mark.parametrize(
    ("change", "words"),
    [({"sizes": {"n": "attention.headz"}}, "'attention.headz' is not a key of architecture"),
     ({"facts": {"sinks": True}}, "'sinks' is not a key of architecture"),
     ({"size": {}}, "unknown key 'size'")],
)  # fmt: skip
def test_a_wrong_family_is_one_line(config, change, words):
    studies.write(config / "families/otter.yaml", INVENTED | change)
    with pytest.raises(ConfigError, match=r"otter\.yaml: .*" + words) as caught:
        Config(config).families()
    assert "\n" not in str(caught.value)


def test_an_unknown_family_names_those_of_the_folder(config, tmp_path):
    spec = studies.read(ROOT / "config/models/gpt-oss-20b.yaml")
    spec["architecture"]["family"] = "gpt_os"
    studies.write(config / "models/gpt-oss-20b.yaml", spec)
    with pytest.raises(ConfigError, match="unknown family 'gpt_os'; did you mean 'gpt_oss'"):
        Config(config).model("gpt-oss-20b")


# ------------------------------------------------------------------------------------------ shared disks


@pytest.fixture
def shared(tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint on a shared disk, read-only, and a configuration with a study that asks for it."""
    disk = tmp_path / "disk/moe"
    disk.mkdir(parents=True)
    (disk / "config.json").write_text(json.dumps(CONFIGS["mixtral-8x7b"]))
    (disk / "model.safetensors").write_bytes(b"w" * 1000)
    (disk / ".cache").mkdir()
    block = {"fix": {"model": "here", "batch": 1, "input_tokens": 8, "output_tokens": 4}}
    made = studies.folder(tmp_path, {"x": [block]}, models=tmp_path / "models")
    spec = studies.read(ROOT / "config/models/mixtral-8x7b.yaml")
    studies.write(made / "models/here.yaml", spec | {"name": "here", "source": {"path": str(disk)}})
    return disk, made


def test_a_shared_model_is_linked_and_checked_never_copied(shared, tmp_path, capsys):
    disk, made = shared
    before = {path: (path.stat().st_mtime_ns, path.stat().st_mode) for path in disk.rglob("*")}
    plan = make_plan(Config(made), "test")
    (engine,) = plan["engines"].values()
    assert engine["model"]["source"] == f"path:{disk}" and engine["model"]["weights"] == "checkpoint"
    assert stage_study(Config(made), "test") == 0
    assert staged.check(Path(engine["model"]["path"]), full=True) == [], "the plan made before pinning finds it"
    plan = make_plan(Config(made), "test")
    (engine,) = plan["engines"].values()
    links = Path(engine["model"]["path"])
    assert all((links / name).is_symlink() for name in ("config.json", "model.safetensors"))
    assert (links / "model.safetensors").resolve() == disk / "model.safetensors"
    assert staged.read_manifest(links)["files"].keys() == {"config.json", "model.safetensors"}
    assert {path: (path.stat().st_mtime_ns, path.stat().st_mode) for path in disk.rglob("*")} == before
    assert ModelLock(made / "models.lock.yaml").commit(f"path:{disk}", "files") == engine["model"]["revision"]
    capsys.readouterr()
    assert stage_study(Config(made), "test") == 0
    assert "reading" not in capsys.readouterr().err, "whole by size: not read again"


def test_changed_files_are_found_and_refused(shared, tmp_path):
    disk, made = shared
    stage_study(Config(made), "test")
    (engine,) = make_plan(Config(made), "test")["engines"].values()
    links = Path(engine["model"]["path"])
    (disk / "model.safetensors").write_bytes(b"x" * 1000)
    assert staged.check(links) == [] and "SHA-256" in staged.check(links, full=True)[0]
    spec, lock = Config(made).model("here"), ModelLock(made / "models.lock.yaml")

    def place(revision: str) -> Path:
        return Path(shared_folder(str(tmp_path / "models"), "here", revision))

    with pytest.raises(StageError, match=r"its files differ from the pinned ones .* `moebench stage --update`"):
        stage_shared(spec.source, place, lock, Progress(io.StringIO()), full=True)
    (disk / "model.safetensors").write_bytes(b"x" * 999)
    assert "999 bytes instead of 1000" in staged.check(links)[0]
    stage_shared(spec.source, place, lock, Progress(io.StringIO()), update=True)
    (engine,) = make_plan(Config(made), "test")["engines"].values()
    assert engine["model"]["revision"] != links.name and staged.check(Path(engine["model"]["path"]), full=True) == []


def test_a_folder_that_is_not_there_is_one_line(shared):
    disk, made = shared
    shutil.rmtree(disk)
    with pytest.raises(StageError, match="study test: 1 of 1"):
        stage_study(Config(made), "test")
    spec, lock = Config(made).model("here"), ModelLock(made / "models.lock.yaml")
    with pytest.raises(StageError, match=f"{disk}: no such folder; correct source.path"):
        stage_shared(spec.source, Path, lock, Progress(io.StringIO()))


@pytest.mark.parametrize(
    ("source", "words"),
    [({"path": "relative/folder"}, "source.path is 'relative/folder'"),
     ({"path": "/a", "random_init": {}}, "give exactly one of hub, random_init, path"),
     ({"random_init": {}, "quantization": "mxfp4"}, "quantization goes with path")],
)  # fmt: skip
def test_a_wrong_source_is_one_line(shared, source, words):
    _, made = shared
    spec = studies.read(made / "models/here.yaml")
    studies.write(made / "models/here.yaml", spec | {"source": source})
    with pytest.raises(ConfigError, match=words):
        Config(made).model("here")


def test_a_quantized_shared_model_is_asked_for_by_its_scheme(shared):
    _, made = shared
    spec = studies.read(made / "models/here.yaml")
    spec["source"]["quantization"] = "mxfp4"
    studies.write(made / "models/here.yaml", spec)
    model = Config(made).model("here")
    taken = staged_model(model, EngineKnobs(model="here", quantization="mxfp4"), "models", lambda *_: None)
    assert taken.source == f"path:{model.source.path}"
    with pytest.raises(ConfigError, match="is quantized; set quantization: mxfp4"):
        staged_model(model, EngineKnobs(model="here"), "models", lambda *_: None)
