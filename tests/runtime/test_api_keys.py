"""api_keys: what the file may hold, and which key may do what."""

from hashlib import sha256
from pathlib import Path

import pytest

from pynsqd.runtime.api_keys import ApiKeys, Policy, lookupd_policy, node_policy
from pynsqd.runtime.http import key_of
from pynsqd.wire.errors import StartupError
from tests.support.lookupds import capture_log


def digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def write(folder: Path, text: str, mode: int = 0o600) -> str:
    path = folder / "keys"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def keys(folder: Path, text: str, policy: Policy = node_policy) -> ApiKeys:
    return ApiKeys(write(folder, text), policy, capture_log()[0])


def status(found: ApiKeys, request: str, key: str | None) -> int:
    method, target = request.split()
    path, _, raw_query = target.partition("?")
    refusal = found.refusal(method, path, key, raw_query)
    return 200 if refusal is None else refusal.status


PUBLISHES = ["POST /pub?topic=t", "POST /mpub?topic=t"]
READS = ["GET /stats", "GET /info", "GET /config/log_level", "GET /metrics", "GET /whatever"]
ADMINISTERS = ["POST /topic/delete?topic=t", "POST /channel/empty", "PUT /config/log_level", "DELETE /stats"]
ADMINISTERS += ["GET /debug/pprof/heap", "POST /debug/freememory", "GET /debug", "POST /whatever", "HEAD /stats"]
OPEN = ["GET /ping", "GET /livez", "GET /readyz"]


def test_roles(tmp_path: Path) -> None:
    found = keys(
        tmp_path,
        f"# a comment\n\nshop  publish  {digest('p')}\nview read {digest('r')} # one more\n"
        f"both\tpublish,read {digest('b')}\nroot admin {digest('a')}\n",
    )
    allowed = {"p": PUBLISHES, "r": READS, "b": PUBLISHES + READS, "a": PUBLISHES + READS + ADMINISTERS}
    for request in PUBLISHES + READS + ADMINISTERS + OPEN:
        for key, requests in allowed.items():
            assert status(found, request, key) == (200 if request in requests + OPEN else 403), (request, key)
        assert status(found, request, None) == (200 if request in OPEN else 401)
        assert status(found, request, "wrong") == (200 if request in OPEN else 401)
        assert status(found, request, "") == (200 if request in OPEN else 401)


def test_publishing_can_stay_open(tmp_path: Path) -> None:
    found = keys(tmp_path, f"anonymous publish -\nview read {digest('r')}\nroot admin {digest('a')}\n")
    assert [status(found, "POST /pub", key) for key in (None, "r", "a", "x")] == [200, 200, 200, 401]
    assert [status(found, "GET /stats", key) for key in (None, "r", "a", "x")] == [401, 200, 200, 401]
    assert [status(found, "POST /topic/delete", key) for key in (None, "r", "a")] == [401, 403, 200]


@pytest.mark.parametrize("path", ["/lookup?topic=t", "/nodes", "/topics", "/channels?topic=t", "/ping"])
def test_lookupd_is_open_to_readers(path: str, tmp_path: Path) -> None:
    found = keys(tmp_path, f"root admin {digest('a')}\n", lookupd_policy)
    assert status(found, f"GET {path}", None) == 200
    assert [status(found, "POST /topic/tombstone", key) for key in (None, "x", "a")] == [401, 401, 200]
    assert status(found, "GET /debug", None) == 401


def test_answers(tmp_path: Path) -> None:
    found = keys(tmp_path, f"view read {digest('r')}\n")
    missing, forbidden = found.refusal("POST", "/pub", None), found.refusal("POST", "/pub", "r")
    assert missing is not None
    assert forbidden is not None
    assert (missing.body, dict(missing.headers)["WWW-Authenticate"]) == (b'{"message":"UNAUTHORIZED"}', "Bearer")
    assert forbidden.body == b'{"message":"FORBIDDEN"}'


@pytest.mark.parametrize(
    ("x_api_key", "authorization", "key"),
    [
        (None, None, None),
        ("k", None, "k"),
        (" k ", "Bearer other", "k"),
        ("", "Bearer other", ""),
        (None, "Bearer k", "k"),
        (None, "bearer  k", "k"),
        (None, "Basic azpr", None),
        (None, "Bearer", None),
        (None, "Bearerk", None),
    ],
)
def test_headers(x_api_key: str | None, authorization: str | None, key: str | None) -> None:
    assert key_of(x_api_key, authorization) == key


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no keys in it"),
        ("# only a comment\n", "no keys in it"),
        ("a admin", "line 1: not a name"),
        (f"\na admin {'0' * 64} more", "line 2: not a name"),
        (f"a/b admin {'0' * 64}", "a name has"),
        (f"{'a' * 65} admin {'0' * 64}", "a name has"),
        (f"a boss {'0' * 64}", "roles are admin, publish, read"),
        (f"a admin, {'0' * 64}", "roles are"),
        ("a admin secret", "64 hexadecimal digits"),
        (f"a admin {'A' * 64}", "64 hexadecimal digits"),
        (f"a admin {'0' * 63}", "64 hexadecimal digits"),
        (f"anonymous read {'0' * 64}", "anonymous has -"),
        ("a read -", "64 hexadecimal digits"),
        (f"a read {'0' * 64}\na read {'1' * 64}", "line 2: this name"),
        (f"a read {'0' * 64}\nb read {'0' * 64}", "line 2: this name, or this key"),
    ],
)
def test_malformed_file(text: str, what: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(StartupError) as caught:
        ApiKeys(path, node_policy, capture_log()[0])
    assert what in str(caught.value)
    assert str(caught.value).startswith(f"--http-api-key-file {path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o666, 0o602, 0o601])
def test_file_that_others_have_access_to(mode: int, tmp_path: Path) -> None:
    path = write(tmp_path, f"a admin {'0' * 64}", mode)
    with pytest.raises(StartupError, match="chmod"):
        ApiKeys(path, node_policy, capture_log()[0])
    Path(path).chmod(0o640)
    ApiKeys(path, node_policy, capture_log()[0])


def test_file_that_the_documentation_shows(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    found = keys(tmp_path, page.partition("## API keys")[2].split("```")[1])
    assert [status(found, request, None) for request in ("POST /pub", "GET /stats")] == [200, 401]


def test_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="No such file"):
        ApiKeys(str(tmp_path / "none"), node_policy, capture_log()[0])
    with pytest.raises(StartupError, match="directory"):
        ApiKeys(str(tmp_path), node_policy, capture_log()[0])
    path = write(tmp_path, "")
    Path(path).write_bytes(b"\xff\xfe")
    with pytest.raises(StartupError, match="UTF-8"):
        ApiKeys(path, node_policy, capture_log()[0])


def test_a_file_that_is_too_large_is_not_read_in_part(tmp_path: Path) -> None:
    """What the cut leaves away could be who may do less."""
    log, captured = capture_log()
    line = f"a admin {digest('a')}\n"
    path = write(tmp_path, line + "#" * ((1 << 20) - len(line)))
    found = ApiKeys(path, node_policy, log)
    with open(path, "a") as file:
        file.write("\n")
    with pytest.raises(StartupError) as caught:
        ApiKeys(path, node_policy, log)
    assert str(caught.value) == f"--http-api-key-file {path}: more than 1048576 bytes"
    found.reload()
    assert status(found, "GET /stats", "a") == 200
    assert [(entry["log_level"], entry["error"]) for entry in captured.entries] == [("error", str(caught.value))]


def test_reload(tmp_path: Path) -> None:
    log, captured = capture_log()
    path = write(tmp_path, f"a admin {digest('old')}")
    found = ApiKeys(path, node_policy, log)
    reloads: list[bool] = []
    found.on_reload = lambda: reloads.append(True)
    Path(path).write_text("nonsense")
    found.reload()
    assert status(found, "GET /stats", "old") == 200
    assert not reloads
    Path(path).write_text(f"b admin {digest('new')}")
    found.reload()
    assert [status(found, "GET /stats", key) for key in ("old", "new")] == [401, 200]
    assert reloads == [True]
    assert [entry["log_level"] for entry in captured.entries] == ["error", "info"]


def test_admin_is_logged_by_name(tmp_path: Path) -> None:
    log, captured = capture_log()
    found = ApiKeys(write(tmp_path, f"root admin {digest('very secret')}"), node_policy, log)
    for request in ("POST /topic/delete?topic=t", "GET /stats", "POST /pub?topic=t"):
        assert status(found, request, "very secret") == 200
    assert status(found, "POST /topic/delete?topic=u", "wrong secret") == 401
    (entry,) = captured.entries
    assert (entry["key"], entry["method"], entry["target"]) == ("root", "POST", "/topic/delete?topic=t")
    assert "secret" not in repr(captured.entries)
