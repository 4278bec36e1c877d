"""Distinguishes prompt tokens from generated tokens inside vLLM's workers."""

from __future__ import annotations

from typing import Any


class Phases:
    """The phase of the current step: ``now`` is prefill (prompt tokens), decode (generated tokens) or mixed.

    Derived from what the scheduler passes to the model runner.  The order of tokens in a step is unknown, so a step
    with tokens of both kinds is not split.
    """

    def __init__(self, model_runner: Any, on: bool):
        self.now = ""
        self._left: dict[str, int] = {}  # tokens of each request's prompt that are still to come
        execute = model_runner.execute_model
        execute = getattr(execute, "watched", execute)  # an earlier capture's ends here
        model_runner.execute_model = execute
        if not on:
            return

        def watched(scheduled: Any, *rest: Any, **more: Any) -> Any:
            self.see(scheduled)
            return execute(scheduled, *rest, **more)

        watched.watched = execute  # type: ignore[attr-defined]
        model_runner.execute_model = watched

    def see(self, scheduled: Any) -> None:
        """Determine the phase of a step from vLLM's ``SchedulerOutput``."""
        for request in scheduled.scheduled_new_reqs:
            self._left[request.req_id] = len(request.prompt_token_ids) - request.num_computed_tokens
        prompt = total = 0
        for name, tokens in scheduled.num_scheduled_tokens.items():
            read = min(tokens, self._left.get(name, 0))
            self._left[name] = self._left.get(name, 0) - read
            prompt, total = prompt + read, total + tokens
        self.now = "decode" if not prompt else "prefill" if prompt == total else "mixed"
