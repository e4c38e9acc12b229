"""Keys, and what browsers may be made to do."""

import shutil
from pathlib import Path

import pytest

from pilot.serve.auth import ApiKeys, WrongKeys, check_origin, is_loopback, read_api_key, tls_context

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


def test_roles_stand_in_front_of_a_key(tmp_path):
    file = tmp_path / "keys.txt"
    file.write_text("act: robots-key\nwatch, act : both-of-them\na: colon-key\ncommand: boss-key-1\n")
    keys = ApiKeys.read(file)
    assert keys.owner("robots-key", role="act") and keys.owner("both-of-them", role="watch")
    assert keys.owner("a: colon-key", role="command"), "no roles: the whole line is the key"
    assert keys.owner("boss-key-1", role="watch"), "who commands may watch"
    with pytest.raises(PermissionError, match="may not 'command', only act"):
        keys.owner("robots-key", role="command")
    with pytest.raises(PermissionError, match="may not 'act', only command"):
        keys.owner("boss-key-1", role="act")
    with pytest.raises(ValueError, match="has the roles act, watch, command, not \\['fly'\\]"):
        ApiKeys({"some-key": ("fly",)})
    file.write_text("watch, comand: boss-key-1\n")
    with pytest.raises(ValueError, match="has the roles act, watch, command, not comand"):
        ApiKeys.read(file)


def test_wrong_keys_slow_their_address_down_and_nobody_else():
    now = [0.0]
    wrong = WrongKeys(burst=3, seconds=2.0, clock=lambda: now[0])
    wrong.add("10.0.0.1", "right-key", is_right=True)
    for _ in range(3):
        assert wrong.wait("10.0.0.1", "guess") == 0
        wrong.add("10.0.0.1", "guess", is_right=False)
    assert wrong.wait("10.0.0.1", "another guess") == pytest.approx(2.0)
    assert wrong.wait("10.0.0.1", "right-key") == 0, "who was right before is not locked out"
    assert wrong.wait("10.0.0.2", "another guess") == 0
    now[0] = 2.0
    assert wrong.wait("10.0.0.1", "another guess") == 0
    wrong.add("10.0.0.1", "guess", is_right=False)
    assert wrong.wait("10.0.0.1", "another guess") == pytest.approx(2.0)


def test_what_is_remembered_of_wrong_keys_is_bounded():
    wrong = WrongKeys(addresses=5)
    for number in range(50):
        wrong.add(f"10.0.0.{number}", "guess", is_right=False)
        wrong.add(f"10.0.0.{number}", "right", is_right=True)
    assert len(wrong._wrong) == len(wrong._right) == 5


@pytest.mark.parametrize(
    ("host", "is_own"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("[::1]", True), ("0.0.0.0", False), ("::", False),
     ("192.168.1.5", False), ("robot.lan", False)],
)  # fmt: skip
def test_who_reaches_a_host(host, is_own):
    assert is_loopback(host) is is_own


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
