"""Images are made from their seed, parameters and tokens of vision parts are counted as their makers do."""

import itertools
import re

import numpy as np
import pytest

from moebench.commands.planning import make_plan
from moebench.config import Architecture, Config, EngineKnobs, WorkloadKnobs
from moebench.cost import params, vision
from moebench.cost.roofline import cell_time
from moebench.errors import ConfigError
from moebench.measure import worker
from moebench.prompts import images
from studies import ROOT
from studies import folder as studies_folder

CONFIG = Config(ROOT / "config")


def architecture(name: str) -> Architecture:
    return CONFIG.model(name).architecture


# -------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("size", [1, 2, 56, 113])
def test_number_and_size_are_exact(size):
    made = images.make(3, 2, size, seed=1)
    assert [[(image.size, image.mode) for image in request] for request in made] == [[((size, size), "RGB")] * 2] * 3


def test_all_images_of_all_runs_differ_and_follow_from_their_seed():
    one, same, other = (images.make(4, 3, 32, seed) for seed in (1, 1, 2))
    pixels = [[image.tobytes() for request in made for image in request] for made in (one, same, other)]
    assert pixels[0] == pixels[1]
    assert len(set(pixels[0] + pixels[2])) == 24


def test_no_two_patches_of_an_image_are_alike():
    (request,) = images.make(1, 1, 112, seed=3)
    pixels = np.asarray(request[0])
    patches = {pixels[y : y + 14, x : x + 14].tobytes() for y in range(0, 112, 14) for x in range(0, 112, 14)}
    assert len(patches) == 64
    assert pixels.std() > 20, "shapes, not one colour"


# ------------------------------------------------------------------------------------- vision parts


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("deepseek-vl2-tiny", 435767360), ("deepseek-vl2-small", 441865280), ("deepseek-vl2", 446585920)],
)
def test_parameters_are_those_counted_from_the_published_shapes(name, parameters):
    """SigLIP-SO400M (428,225,600, as timm builds it) and a projector on four merged patches."""
    shape = architecture(name)
    hidden = shape.hidden_size
    assert vision.parameters(shape) == parameters == 428_225_600 + 4 * 1152 * hidden + hidden + hidden**2 + 3 * hidden
    assert params.total_parameters(shape).vision == parameters


def test_a_text_model_has_no_vision_part_and_a_number_stands_where_sizes_are_not_known():
    assert vision.parameters(architecture("tiny-mixtral")) == 0
    assert vision.parameters(architecture("molmoe-1b")) == 302449664
    assert vision.image_tokens(architecture("molmoe-1b"), 1, 336) is None
    assert vision.image_tokens(architecture("molmoe-1b"), 0, None) == 0
    with pytest.raises(ValueError, match=r"vision_parameters .*vision"):
        Architecture.model_validate(architecture("deepseek-vl2").model_dump() | {"vision_parameters": 1})


@pytest.mark.parametrize(
    ("count", "size", "tokens"),
    [(1, 100, 421), (1, 384, 421), (1, 385, 1023), (2, 768, 2046), (1, 769, 2017), (1, 9999, 2017), (3, 768, 1263)],
)
def test_tokens_of_deepseek_vl2(count, size, tokens):
    """210 + 1 + 210 for one tile of 14 x 14 tokens with line ends, 812 and 1806 for 2 x 2 and 3 x 3 of them; more than
    two images are not cut.  tests/workflow/test_image_cells.py asks vLLM's processor the same."""
    assert vision.image_tokens(architecture("deepseek-vl2"), count, size) == tokens


@pytest.mark.parametrize(("size", "tokens"), [(40, 36), (56, 36), (57, 88), (112, 88), (113, 172), (300, 172)])
def test_tokens_of_llava_next(size, tokens):
    """Counted by vLLM 0.32 and by transformers 5.19 for these sizes: 16 + 20, 16 + 72, 16 + 156."""
    assert vision.image_tokens(architecture("tiny-llava-moe-s"), 1, size) == tokens
    assert vision.image_tokens(architecture("tiny-llava-moe-s"), 3, size) == 3 * tokens


@pytest.mark.parametrize(("name", "edge"), [("deepseek-vl2", 14), ("tiny-llava-moe-s", 4)])
def test_of_any_size_is_the_most_of_all_shapes(name, edge):
    grids = [(high, wide) for high in range(1, 10) for wide in range(1, 10) if high * wide <= 9]
    whole = edge * (edge + 1) + 1 if name == "deepseek-vl2" else edge**2
    most = max(whole + high * edge * (wide * edge + 1) for high, wide in grids)
    assert vision.image_tokens(architecture(name), 1, None) == most


# --------------------------------------------------------------------------------------- predictions


def planned(tmp_path, hardware="h100-sxm5-80gb", engine="vllm", **fix):
    work = {"batch": 4, "input_tokens": 100, "output_tokens": 50, **fix}
    runs_on = {"name": engine, "version": "0.32.0", "environment": "vllm-cuda"}
    config = studies_folder(tmp_path, {"x": [{"fix": work}]}, hardware=hardware, defaults={}, engine=runs_on)
    plan = make_plan(Config(config), "test")
    (cell,) = plan["cells"].values()
    (engine,) = plan["engines"].values()
    return cell["predicted"], engine["predicted"]


def test_memory_and_times_count_images(tmp_path):
    text, engine = planned(tmp_path / "text", model="deepseek-vl2-tiny")
    seen, other = planned(tmp_path / "seen", model="deepseek-vl2-tiny", images=1, image_size=384)
    assert "image_tokens" not in text and seen["image_tokens"] == 421
    assert seen["kv_bytes_per_gpu"] == pytest.approx(text["kv_bytes_per_gpu"] * (150 + 421) / 150)
    assert seen["batch_fits"] is text["batch_fits"] is True
    # 4 requests of 2 tiles of 666 GFLOP at 989 TFLOP/s, and 421 more tokens to read and to keep
    assert seen["ttft_max_s"] > text["ttft_max_s"] + 4 * 2 * 666e9 / 989.4e12
    assert text["itl_s"] < seen["itl_s"] < 1.1 * text["itl_s"]
    assert seen["least_e2e_s"] == text["least_e2e_s"] < seen["e2e_s"] < seen["run_s"]
    likely, without = seen["calibrated"], text["calibrated"]
    assert seen["run_s"] == likely["e2e_s"] and likely["ttft_max_s"] > without["ttft_max_s"] + 4 * 2 * 666e9 / 989.4e12
    assert other["job_s"] > engine["job_s"]


def test_what_images_add_is_unknown_where_the_sizes_are(tmp_path):
    seen, _ = planned(tmp_path, engine="transformers", model="molmoe-1b", images=1, image_size=336)
    assert seen["image_tokens"] is seen["kv_bytes_per_gpu"] is seen["bytes_per_gpu"] is seen["batch_fits"] is None
    assert all(seen[name] is None for name in ("ttft_max_s", "itl_s", "e2e_s", "least_e2e_s"))
    assert seen["weight_bytes_per_gpu"] > 0 and seen["run_s"] > 0


@pytest.mark.parametrize(
    ("name", "images", "size", "known"),
    [
        ("deepseek-vl2", 0, None, 0),
        ("deepseek-vl2", 1, 384, 2),
        ("deepseek-vl2", 2, 385, 2 * 5),
        ("deepseek-vl2", 2, 9999, 2 * 10),
        ("deepseek-vl2", 3, 9999, 3 * 2),
        ("deepseek-vl2", 1, None, None),
        ("tiny-llava-moe-s", 3, 112, 3 * 5),
        ("molmoe-1b", 1, 336, None),
    ],
)
def test_tiles_of_a_request(name, images, size, known):
    assert vision.tiles(architecture(name), images, size) == known


def test_a_tile_of_deepseek_vl2_takes_what_torch_counts():
    """The tower: see tests/workflow/test_checkpoints.py."""
    projector = 2 * 14**2 * (4 * 1152 * 2560 + 2560**2)
    assert vision.tile_ops(architecture("deepseek-vl2")) == 666_448_114_176 + projector
    assert vision.tile_ops(architecture("mixtral-8x7b")) == vision.tower_weights(architecture("mixtral-8x7b")) == 0


def test_images_take_the_vision_part_once_per_chunk_on_every_rank():
    hardware, here = CONFIG.hardware("h100-sxm5-80gb"), architecture("deepseek-vl2")
    times = {}
    for tp, dp, shown in itertools.product((1, 2), (1, 2), (0, 1)):
        knobs = EngineKnobs(model="deepseek-vl2", tp=tp, dp=dp)
        tokens = 1000 if shown else 1000 + vision.image_tokens(here, 1, 384)  # the same number of tokens
        work = WorkloadKnobs(
            batch=4, input_tokens=tokens, output_tokens=1, images=shown, image_size=384 if shown else None
        )
        times[tp, dp, shown] = cell_time(here, hardware, knobs, work).ttft_s
    peak = hardware.peak["bfloat16"].flops_per_s
    for tp, dp in itertools.product((1, 2), (1, 2)):
        tower = times[tp, dp, 1] - times[tp, dp, 0]
        assert tower == pytest.approx(4 / dp * 2 * vision.tile_ops(here) / peak)
    work = WorkloadKnobs(images=1, image_size=None, prompts="items")
    assert cell_time(here, hardware, EngineKnobs(model="deepseek-vl2"), work) is None


# ------------------------------------------------------------------------------------------- checks

WORK = {"batch": 2, "input_tokens": 10, "output_tokens": 3, "top_k": 2}


def test_routing_counts_the_tokens_of_images():
    """2 requests x (10 text + 7 image + 3 output - 1) = 38 tokens, 2 experts each."""
    captured = {0: {"counts": [50, 26], "steps": [[34, 2], [2, 2], [2, 1]]}}
    assert worker.routing(captured, WORK, False, 7)["experts_per_token"] == 2
    assert worker.routing(captured, WORK, False)["experts_per_token"] == 76 / 24


def test_a_prefill_that_images_make_longer_than_a_step_may_be_split():
    checks = {"preemptions": 0, "prefix_cache_hits": 0, "experts_per_token": 2, "image_tokens": None}
    one_after_the_other = [{"requests": [[[0, 3, 1]], [[3, 3, 1]]]}]
    config = {"max_num_batched_tokens": 20}
    assert "did not run together" in worker.insane(WORK, checks, one_after_the_other, config)
    assert "did not run together" in worker.insane(
        WORK, checks | {"image_tokens": 10}, one_after_the_other, {"max_num_batched_tokens": 20}
    )
    assert worker.insane(WORK, checks | {"image_tokens": 20}, one_after_the_other, config) is None


def test_another_number_of_image_tokens_than_planned_is_said():
    assert worker.miscounted(None, 7) is worker.miscounted(7, 7) is None
    assert re.search(r"\b8 tokens.*\b7$", worker.miscounted(7, 8))
    assert worker.miscounted(7, 5, at_most=True) is None
    assert re.search(r"\b8 tokens.*\b7 at most", worker.miscounted(7, 8, at_most=True))
    assert "became None tokens" in worker.miscounted(7, None, at_most=True)


def test_images_of_one_size_become_equally_many_tokens():
    assert images.tokens({}) is None and images.tokens({"image_tokens": [36, 36]}) == 36
    with pytest.raises(RuntimeError, match=r"tokens: \[36, 88\]"):
        images.tokens({"image_tokens": [36, 88]})


def test_a_text_model_takes_no_images(tmp_path):
    with pytest.raises(ConfigError, match="images 1: tiny-mixtral accepts none"):
        planned(tmp_path, hardware="local-cpu", model="tiny-mixtral", kv_cache_mb=64, images=1, image_size=56)
