"""A search for the highest request rate that meets the goals, against a service whose limit is known."""

import pytest

from moebench.engines import failures, rate_search
from moebench.measure import max_rate, records

WORK = {"requests": 20, "try_s": 1.0, "lowest_rate": 1.0, "highest_rate": 64.0, "rate_tolerance": 0.1,
        "goals_share": 0.9, "goals": {"ttft_s": 0.5}, "request_rate": None, "concurrency": None}  # fmt: skip
WHERE = ("engine", "cell")


class Service:
    """Answers as `measure.worker` does: requests above its limit wait too long.  ``fails``: outcome by rate."""

    def __init__(self, limit, sends=1e9, fails=None):
        self.limit, self.sends, self.fails, self.asked = limit, sends, fails or {}, []

    def ask(self, work):
        rate, count = work["request_rate"], work["requests"]
        self.asked.append(rate)
        if rate in self.fails:
            return self.fails[rate]
        really = min(rate, self.sends)
        load = {"start_s": [i / really for i in range(count)], "ttft_s": [0.1 if rate <= self.limit else 2.0] * count,
                "gaps_s": [[0.01]] * count, "input_tokens": [4] * count, "output_tokens": [2] * count,
                "errors": [""] * count}  # fmt: skip
        load["ttft_s"][0] = 0.01
        return {"status": "ok", "reason": "", "checks": {"requests": count},
                "repeats": [{"seed": 1, "started_at": "", "metrics": {"ttft_s": 0.1}, "load": load}]}  # fmt: skip


def searched(tmp_path, service, work=WORK):
    return max_rate.search(work, max_rate.Journal(tmp_path, *WHERE), service.ask, lambda text: None)


@pytest.mark.parametrize("limit", [1.0, 1.5, 7.3, 33.0, 63.9])
def test_the_bracket_holds_the_limit_and_is_as_narrow_as_asked(tmp_path, limit):
    service = Service(limit)
    outcome = searched(tmp_path, service)
    found = outcome["search"]
    assert outcome["status"] == "ok" and outcome["reason"] == ""
    assert found["max_rate"] <= limit < found["missed_rate"] <= 1.1 * found["max_rate"] * 1.001
    assert len(set(service.asked)) == len(service.asked) == outcome["checks"]["rates_tried"]
    assert max(service.asked) <= 2 * max(limit, 1), "no server is drowned"
    assert len(outcome["repeats"][0]["load"]["start_s"]) == max(20, -(-found["max_rate"] // 1)), (
        "those of the best rate"
    )


def test_a_goal_that_nobody_meets_is_a_result_of_its_own(tmp_path):
    outcome = searched(tmp_path, Service(0.5))
    assert outcome["status"] == "goals_missed" and outcome["status"] in records.FINAL
    assert outcome["reason"].startswith("the lowest rate, 1 requests/s, misses the goals: 0% of ")
    assert outcome["search"]["max_rate"] is None and outcome["repeats"] == []
    assert [t["verdict"] for t in outcome["search"]["tries"]] == ["missed"]


def test_a_search_that_ends_at_its_highest_rate_says_at_least(tmp_path):
    outcome = searched(tmp_path, Service(1000))
    assert (outcome["status"], outcome["search"]["max_rate"], outcome["search"]["missed_rate"]) == ("ok", 64, None)
    assert outcome["reason"] == "max_rate is 64 requests/s or more: highest_rate 64 meets the goals"


def test_a_rate_that_the_client_cannot_send_says_nothing_of_the_server(tmp_path):
    outcome = searched(tmp_path, Service(1000, sends=9.0))
    found = outcome["search"]
    assert found["missed_rate"] is None and 8 <= found["max_rate"] <= 10
    assert outcome["reason"].endswith("the client sent only 9 requests/s, its limit")
    outcome = searched(tmp_path / "slow", Service(1000, sends=0.5))
    assert outcome["status"] == "invalid" and "the client sent only 0.5" in outcome["reason"]


FAULT = {"status": "service_fault", "reason": "rate limited (HTTP 429): 3 of 20 requests; lower the load"}


def test_what_fails_half_way_keeps_the_other_rates_and_goes_on_from_them(tmp_path):
    service = Service(10.0, fails={8.0: dict(FAULT)})
    outcome = searched(tmp_path, service)
    assert outcome["status"] == "service_fault"
    assert outcome["reason"] == f"{FAULT['reason']} (at 8 requests/s; 4 meets the goals)"
    assert [t["request_rate"] for t in outcome["search"]["tries"]] == [1, 2, 4] and outcome["repeats"] == []
    again = Service(10.0)
    outcome = searched(tmp_path, again)
    assert outcome["status"] == "ok" and not set(again.asked) & {1.0, 2.0, 4.0}
    assert outcome["search"]["max_rate"] <= 10 < outcome["search"]["missed_rate"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [("unsupported", failures.NO_KERNEL), ("node_fault", "the node has no driver"), ("invalid", "the engine lied")],
)
def test_what_is_not_of_the_rate_is_told_as_the_engine_told_it(tmp_path, status, reason):
    """The driver knows by these words what ends a whole engine configuration, or is the node's fault."""
    outcome = searched(tmp_path, Service(10.0, fails={2.0: {"status": status, "reason": reason}}))
    assert (outcome["status"], outcome["reason"]) == (status, reason)
    assert [t["request_rate"] for t in outcome["search"]["tries"]] == [1]


def test_a_search_that_is_killed_at_any_try_ends_as_the_others_do(tmp_path):
    whole = searched(tmp_path / "whole", Service(7.3))

    class Killed(Exception):
        pass

    for dies_at in range(1, len(whole["search"]["tries"])):
        place, asked = tmp_path / str(dies_at), []

        def ask(work, service=Service(7.3), asked=asked, dies_at=dies_at):  # noqa: B008
            if len(asked) == dies_at:
                raise Killed
            asked.append(work["request_rate"])
            return service.ask(work)

        with pytest.raises(Killed):
            max_rate.search(WORK, max_rate.Journal(place, *WHERE), ask, lambda text: None)
        rest = Service(7.3)
        outcome = searched(place, rest)
        assert asked + rest.asked == [t["request_rate"] for t in whole["search"]["tries"]]
        assert outcome["search"]["max_rate"] == whole["search"]["max_rate"]
        assert len(outcome["repeats"][0]["load"]["start_s"]) == len(whole["repeats"][0]["load"]["start_s"])


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"tries": [], "sha256": "0"}'])
def test_a_damaged_journal_is_not_believed(tmp_path, damage):
    searched(tmp_path, Service(10.0, fails={8.0: dict(FAULT)}))
    records.tries_path(tmp_path, *WHERE).write_bytes(damage)
    again = Service(10.0)
    searched(tmp_path, again)
    assert again.asked[:3] == [1, 2, 4]


def test_failed_requests_do_not_keep_the_goals(tmp_path):
    service = Service(10.0)
    good = service.ask({"request_rate": 4.0, "requests": 20})
    load = good["repeats"][0]["load"]
    load["errors"][5:9] = ["ServerDisconnectedError"] * 4
    tried = max_rate.judged(4.0, "", good["repeats"], WORK)
    assert tried["verdict"] == "missed" and "4 of 20 requests failed: ServerDisconnectedError" in tried["why"]
    assert tried["share"] == pytest.approx(1 - 4 / tried["requests"])


def test_forecast_counts_what_a_search_may_take():
    assert rate_search.seconds(WORK) == pytest.approx(20 + 10 + 5 + 2.5 + 1.25 + 1 + 1 + 3), "1 to 64, then 3 times"
    assert rate_search.requests(WORK | {"turns": 3}, 40.0) == 42, "whole conversations"
