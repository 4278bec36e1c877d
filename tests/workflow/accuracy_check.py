"""Run by test_accuracy.py in the engine's environment: what only torch, transformers or lm-eval can tell.

python accuracy_check.py likelihoods IN.json OUT.json    log-likelihoods by transformers in float32
python accuracy_check.py harness IN.json OUT.json        the harness on two data sets of one name; a task it lacks
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path


def likelihoods(asked: dict) -> list[list[float]]:
    """Sum of the log-probabilities of each continuation, per (context, continuation), by model folder and top-k."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    found = []
    for part in asked["parts"]:
        tokenizer = AutoTokenizer.from_pretrained(part["model"])
        model = AutoModelForCausalLM.from_pretrained(
            part["model"], dtype=torch.float32, num_experts_per_tok=part["top_k"]
        ).eval()
        sums = []
        for context, continuation in part["pairs"]:
            # as lm-eval splits: blanks at the end of the context belong to the continuation
            blanks = len(context) - len(context.rstrip())
            if blanks:
                context, continuation = context[:-blanks], context[-blanks:] + continuation
            whole, start = tokenizer(context + continuation).input_ids, len(tokenizer(context).input_ids)
            with torch.no_grad():
                logits = model(torch.tensor([whole])).logits[0].log_softmax(-1)
            sums.append(sum(logits[i - 1, whole[i]].item() for i in range(start, len(whole))))
        found.append(sums)
    return found


def harness(asked: dict) -> dict:
    """Questions the harness asks of two staged folders of one name, in one process; its words for an unknown task."""
    from lm_eval.api.registry import get_model

    from moebench.accuracy.lm_eval_harness import LmEval

    class Engine:
        lm = get_model("dummy")()

    seeds, questions = {"random": 0, "numpy": 1, "torch": 1, "fewshot": 1}, []
    with tempfile.TemporaryDirectory() as scratch:
        session = LmEval(Path(scratch))
        for data in asked["data"]:
            task = asked["task"] | {"data": data}
            found, _ = session.evaluate(Engine, task, None, seeds)
            (samples,) = found["samples"].values()
            questions.append(sorted(sample["doc"]["question"] for sample in samples))
        try:
            session.evaluate(Engine, asked["task"] | {"task": "arc_esy", "data": data}, None, seeds)
        except NotImplementedError as error:
            return {"questions": questions, "unknown": str(error)}
    return {"questions": questions, "unknown": None}


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[2]).read_text())
    Path(sys.argv[3]).write_text(json.dumps(globals()[sys.argv[1]](given)))
