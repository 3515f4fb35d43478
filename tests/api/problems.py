"""The one shape of every error: {"code", "message", "request_id"}, with the id in the header too."""

import httpx


def problem_of(answer: httpx.Response, status: int) -> str:
    """Return the code of an error answer that has the agreed shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"code", "message", "request_id"}
    assert body["message"]
    assert body["request_id"] == answer.headers["x-request-id"]
    assert ("retry-after" in answer.headers) == (status in {429, 503})
    code: str = body["code"]
    return code
