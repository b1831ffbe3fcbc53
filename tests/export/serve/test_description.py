"""Requests that schemathesis makes from the server's own OpenAPI description: no answer has a status of 500."""

import contextlib
from collections import Counter

import httpx
import pytest

schemathesis = pytest.importorskip("schemathesis")
hypothesis = pytest.importorskip("hypothesis")


def attack(server, examples: int) -> dict[int, int]:
    """Number of answers by status, to valid and invalid requests for every address of the description."""
    schema = schemathesis.openapi.from_dict(httpx.get(server.url + "/openapi.json").json())
    settings = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    answers: Counter[int] = Counter()
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in schemathesis.GenerationMode:

            @settings
            @hypothesis.given(operation.as_strategy(generation_mode=mode))
            def send(case):
                answer = case.call(base_url=server.url, timeout=60)
                answers[answer.status_code] += 1
                assert answer.status_code < 500, (case.as_curl_command(), answer.text)
                if answer.status_code >= 400 and answer.request.method != "HEAD":
                    assert list(answer.json()) == ["error"], answer.text

            # Nothing about an address without parameters can be wrong
            with contextlib.suppress(hypothesis.errors.Unsatisfiable):
                send()
    return answers


def test_no_request_that_the_description_allows_or_forbids_is_the_servers_fault(server):
    answers = attack(server, examples=24)
    assert sum(answers.values()) >= 200, answers
    assert {200, 400, 404} <= set(answers)
    assert server.uploads() == []


@pytest.mark.soak
def test_two_thousand_requests(server):
    answers = attack(server, examples=240)
    assert sum(answers.values()) >= 2000, answers
    assert server.uploads() == []
