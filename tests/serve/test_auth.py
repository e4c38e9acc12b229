"""Keys, and what browsers may be made to do."""

import shutil
from pathlib import Path

import pytest

from pilot.serve.auth import ApiKeys, check_origin, read_api_key, tls_context

HERE = Path(__file__).parent
FOREIGN, RENAMED = "http://evil.example", {"host": "evil.example:8000"}


def test_without_keys_everyone_is_one():
    keys = ApiKeys()
    assert not keys and keys.owner(None) == keys.owner("anything") == ""


def test_each_key_is_an_owner_of_its_own():
    keys = ApiKeys(["first-key", "second-key"])
    assert keys and keys.owner("first-key") != keys.owner("second-key")
    assert "first" not in keys.owner("first-key")


@pytest.mark.parametrize(
    ("key", "words"),
    [(None, "needs an API key: .*Api-Key"), ("first", "does not know"), ("first-keyé", "does not know")],
)
def test_who_has_no_key_is_told(key, words):
    with pytest.raises(PermissionError, match=words):
        ApiKeys(["first-key"]).owner(key)


def test_keys_are_lines_of_a_file(tmp_path):
    file = tmp_path / "keys.txt"
    file.write_text("# robots\nfirst-key\n\n  second-key \n")
    assert ApiKeys.read(file).owner("second-key")
    file.write_text("# nobody\n")
    with pytest.raises(ValueError, match="no API key in"):
        ApiKeys.read(file)
    with pytest.raises(ValueError, match="8 characters or more"):
        ApiKeys(["short"])


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("Api-Key abc", "abc"),
        ("Bearer abc", "abc"),
        ("bearer  abc", "abc"),
        ("Basic abc", None),
        ("abc", None),
        ("", None),
    ],
)
def test_how_a_key_comes(header, key):
    assert read_api_key({"authorization": header}) == key
    assert read_api_key({}) is None


HOST = {"host": "127.0.0.1:8000"}
OWN = "http://127.0.0.1:8000"


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "10.1.2.3", "LOCALHOST"])
def test_our_own_pages_may_talk(host):
    check_origin({"host": host, "origin": f"http://{host}"}, keyed=False)
    check_origin({"host": host}, keyed=False, page=True)


def test_robots_name_no_origin_and_may_come_by_any_name():
    check_origin({"host": "robots.example"}, keyed=False)


def test_pages_at_a_name_need_keys():
    named = {"host": "robots.example", "origin": "https://robots.example"}
    check_origin(named, keyed=True)
    check_origin(named, keyed=True, page=True)
    with pytest.raises(PermissionError, match="IP address or localhost only"):
        check_origin(named, keyed=False)
    with pytest.raises(PermissionError, match="IP address or localhost only"):
        check_origin({"host": "robots.example"}, keyed=False, page=True)


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("origin", [FOREIGN, "null", "http://127.0.0.1:9000", "http://localhost:8000", ""])
def test_pages_of_others_may_not(origin, keyed):
    with pytest.raises(PermissionError, match="may not talk"):
        check_origin({**HOST, "origin": origin}, keyed=keyed)


def test_tls_says_what_it_cannot_read(tmp_path):
    assert tls_context(HERE / "localhost.pem")
    with pytest.raises(ValueError, match=r"no TLS with certificate .*missing\.pem"):
        tls_context(tmp_path / "missing.pem")
    broken = tmp_path / "broken.pem"
    shutil.copy(HERE / "localhost.pem", broken)
    broken.write_text(broken.read_text().replace("BEGIN CERTIFICATE", "BEGIN NOTHING"))
    with pytest.raises(ValueError, match=r"no TLS with certificate .*broken\.pem"):
        tls_context(broken)
