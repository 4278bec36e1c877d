"""Verbs of the group Models: predictions of the cost model, without measuring."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from moebench.commands.app import CONFIG, MODELS, ConfigFolder, JsonFlag, flag, named, positive, print_json, verb

Quantization = Literal["none", "fp8", "fp8_block", "int8", "awq", "gptq", "mxfp4"]


def _count(name: str, metavar: str, words: str, **more: Any) -> Any:
    return Option(f"--{name}", metavar=metavar, parser=positive(int), help=words, **more)


def _parallel(name: str, words: str) -> Any:
    words = f"{words} parallel size. Default: the fastest layout."
    return _count(name, "N", words, rich_help_panel="Layout")


@verb(MODELS)
def qs(
    model: Annotated[
        str,
        Argument(metavar="MODEL", help="A model of config/models.", autocompletion=named("models"), show_default=False),
    ],
    hardware: Annotated[
        str,
        Option("--hardware", metavar="NAME", help="A machine of config/hardware.", autocompletion=named("hardware")),
    ],
    context_tokens: Annotated[int, _count("context", "TOKENS", "Context length of every sequence.")] = 131072,
    quality: Annotated[
        float, Option("--quality", metavar="Q", parser=positive(float), help="Quality factor q. The paper uses 5.")
    ] = 5.0,
    quantization: Annotated[
        Quantization | None,
        Option("--quantization", help="Quantization of the weights. Default: fp8 where the machine supports it."),
    ] = None,
    batch: Annotated[int | None, _count("batch", "B", "Batch size. Default: as many sequences as fit.")] = None,
    sensitivity: Annotated[
        bool, flag("--sensitivity", "Also vary memory, bandwidth, link and q, one at a time.")
    ] = False,
    json: JsonFlag = False,
    config_folder: ConfigFolder = CONFIG,
    gpus: Annotated[int | None, _count("gpus", "N", "GPUs. Default: one node.", rich_help_panel="Layout")] = None,
    tp: Annotated[int | None, _parallel("tp", "Tensor")] = None,
    pp: Annotated[int | None, _parallel("pp", "Pipeline")] = None,
    dp: Annotated[int | None, _parallel("dp", "Data")] = None,
    ep: Annotated[int | None, _parallel("ep", "Expert")] = None,
    kvp: Annotated[int | None, _parallel("kvp", "KV")] = None,
) -> int:
    """Compare a model with a dense one of equal quality (qs inequality).

    Predicts the speed of decoding from the machine's bandwidths and peak rates. Nothing is measured.
    """
    from moebench.config import Config
    from moebench.qs import show

    knobs = {
        "context_tokens": context_tokens, "quality": quality, "quantization": quantization, "batch": batch,
        "tp": tp, "pp": pp, "dp": dp, "ep": ep, "kvp": kvp,
    }  # fmt: skip
    config = Config(config_folder)
    made = show.compute(config, model, hardware, gpus, **knobs)
    if sensitivity:
        made["sensitivity"] = show.sensitivity(config, made["point"])
    print_json(made) if json else print(show.text(made))
    return 0


@verb(MODELS)
def predict(
    points: Annotated[Path, Argument(metavar="POINTS", help="Points, CSV (docs/cost-model.md).", show_default=False)],
    out: Annotated[
        Path | None, Option("--out", metavar="FILE", help="Write the rows to FILE. Default: standard output.")
    ] = None,
    bound: Annotated[bool, flag("--bound", "Predict the roofline bound instead of calibrated values.")] = False,
    json: Annotated[bool, flag("--json", "Print rows and errors as JSON.")] = False,
    config_folder: ConfigFolder = CONFIG,
) -> int:
    """Predict the times of a list of points.

    If points were measured (column value), also prints the prediction errors by source, model, TP and batch.
    """
    from moebench.commands import predict as predicting
    from moebench.config import Config

    made, known = predicting.run(Config(config_folder), points, bound)
    if json:
        if out:
            made.to_csv(out, index=False)
        print_json(predicting.as_json(made))
    else:
        text = made.to_csv(out, index=False)
        if text is not None:
            print(text, end="")
        print(predicting.report(made), file=sys.stdout if out else sys.stderr)
    known.check()
    return 0
