"""Who may call is changed in the sight of the service's own trail."""

import httpx


def _entries(client: httpx.Client, name: str) -> list[str]:
    found: list[str] = []
    after = None
    while True:
        page = client.get("/v1/audit", params={"limit": 200} | ({"after": after} if after else {})).json()
        found += [each["event"] for each in page["items"] if each["details"].get("client") == name]
        after = page["next_after"]
        if after is None:
            return found


def test_a_client_leaves_an_entry_when_it_is_added_rotated_and_revoked(client: httpx.Client) -> None:
    added = client.post("/v1/clients", json={"name": "audited-desk", "grants": ["enroller:*"]})
    assert added.status_code == 201, added.text
    assert client.post("/v1/clients/audited-desk/rotations", json={}).status_code in {200, 201}
    assert client.delete("/v1/clients/audited-desk").status_code == 200

    assert _entries(client, "audited-desk") == ["client.added", "client.rotated", "client.revoked"]
