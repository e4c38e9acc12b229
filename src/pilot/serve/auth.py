"""Who may do what with a server: API keys and their roles, the origins of web pages, TLS.

A key has roles: `act` (be a robot), `watch` (see robots, and stop them: an emergency stop is for everyone who sees it
needed), `command` (tell robots what to do, and release them; it holds `watch`). A key that names none has all.

A client sends its key as openpi's client does (`Authorization: Api-Key KEY`), or as `Bearer KEY`. A browser sends no
key by itself, but any web page can make it open a connection. So a request from a page must come from the server's own
page. Without an API key, the host in that request must also be an IP address or `localhost`: a stranger can point a
name of his own at this server, but not an address.

Headers are dicts with names in lower case.
"""

import hashlib
import hmac
import ipaddress
import ssl
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

MIN_KEY_LENGTH = 8
Role = Literal["act", "watch", "command"]
ROLES: tuple[Role, ...] = ("act", "watch", "command")


class ApiKeys:
    """The API keys of a server, with their roles; without any, everyone who reaches it may act and watch.

    Raises:
        ValueError: a key is too short, or a role is unknown.
    """

    def __init__(self, keys: Iterable[str] | Mapping[str, Collection[Role]] = ()) -> None:
        roles = keys if isinstance(keys, Mapping) else dict.fromkeys(keys, ROLES)
        self._keys = {key.encode(): frozenset(own) for key, own in roles.items()}
        if unknown := {role for own in self._keys.values() for role in own} - set(ROLES):
            raise ValueError(f"a key has the roles {', '.join(ROLES)}, not {sorted(unknown)}")
        if any(len(key) < MIN_KEY_LENGTH for key in self._keys):
            raise ValueError(
                f"an API key needs {MIN_KEY_LENGTH} characters or more; make one with: openssl rand -hex 16"
            )

    @classmethod
    def read(cls, path: Path) -> "ApiKeys":
        """Read a file with one key per line, its roles in front: `act: KEY` or `watch, command: KEY`, or none for all.

        Empty lines and lines that begin with # are ignored.

        Raises:
            ValueError: the file holds no key, or an unknown role.
        """
        lines = [line.strip() for line in path.read_text().splitlines()]
        if not (keys := [line for line in lines if line and not line.startswith("#")]):
            raise ValueError(f"no API key in {path}; write one per line")
        return cls(dict(map(parse_key, keys)))

    def __bool__(self) -> bool:
        return bool(self._keys)

    def owner(self, key: str | None, *, role: Role | None = None) -> str:
        """Return a name for the holder of this key; where the server has no keys, all clients share one name.

        Raises:
            PermissionError: the server has keys, and this is not one of them, or has not this role.
        """
        if not self._keys:
            return ""
        if key is None:
            raise PermissionError("this server needs an API key: send the header 'Authorization: Api-Key YOUR-KEY'")
        given = key.encode(errors="surrogatepass")  # JSON can carry half a character, which UTF-8 cannot
        # Compare with every key, each in constant time: how long it takes says nothing about the keys.
        matches = [own for known, own in self._keys.items() if hmac.compare_digest(given, known)]
        if not matches:
            raise PermissionError("this server does not know this API key")
        if role is not None and role not in matches[0] and not (role == "watch" and "command" in matches[0]):
            raise PermissionError(f"this API key may not '{role}', only {', '.join(sorted(matches[0])) or 'nothing'}")
        return hashlib.sha256(given).hexdigest()[:16]


class WrongKeys:
    """Slows down whoever tries keys: after `burst` wrong ones, an address may try one more every `seconds`.

    Meanwhile no key of that address is looked at, right or wrong, so that nothing is learned; but keys that this
    address has shown to be right before are. At most `addresses` are remembered; the oldest are forgotten first.
    """

    def __init__(
        self,
        *,
        burst: int = 10,
        seconds: float = 3.0,
        addresses: int = 1000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.burst, self.seconds, self.addresses, self.clock = burst, seconds, addresses, clock
        self._wrong: dict[str, tuple[float, float]] = {}  # by address: how many count, and since when
        self._right: dict[tuple[str, str], None] = {}

    def wait(self, address: str, key: str | None) -> float:
        """Return for how many seconds no key of this address is looked at; 0 for one that may be."""
        if (address, _digest(key)) in self._right:
            return 0.0
        return max(0.0, (self._count(address) - self.burst + 1) * self.seconds)

    def add(self, address: str, key: str | None, *, is_right: bool) -> None:
        """Note that an address has shown a right or a wrong key."""
        if is_right:
            self._right[address, _digest(key)] = None
        else:
            self._wrong[address] = (self._count(address) + 1, self.clock())
        for known in (self._wrong, self._right):
            while len(known) > self.addresses:
                known.pop(next(iter(known)))  # type: ignore[call-overload]

    def _count(self, address: str) -> float:
        count, since = self._wrong.get(address, (0.0, 0.0))
        return max(0.0, count - (self.clock() - since) / self.seconds)


def _digest(key: str | None) -> str:
    return hashlib.sha256((key or "").encode(errors="surrogatepass")).hexdigest()


def parse_key(line: str) -> tuple[str, tuple[Role, ...]]:
    """Return the key in a line and its roles: those named before a colon, or all.

    Raises:
        ValueError: some of the names before a key are roles, and some are not.
    """
    before, _, key = line.partition(":")
    named = {role.strip() for role in before.split(",")}
    unknown = named - set(ROLES)
    if unknown and unknown != named:  # a role that is misspelt; where none is one, the line is a key with a colon
        raise ValueError(f"a key has the roles {', '.join(ROLES)}, not {', '.join(sorted(unknown))}")
    if key.strip() and not unknown:
        return key.strip(), tuple(role for role in ROLES if role in named)
    return line, ROLES


def read_api_key(headers: Mapping[str, str]) -> str | None:
    """Return the key in the `Authorization` header, or None."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() in ("api-key", "bearer") and key.strip() else None


def check_origin(headers: Mapping[str, str], *, keyed: bool, page: bool = False) -> None:
    """Refuse a request that a page of another site made a browser send.

    `keyed` says that the server has API keys, `page` that a browser reads this even where it names no origin.

    Raises:
        PermissionError: the page is not the server's own, or reached it by a name that anyone could have registered.
    """
    origin, host = headers.get("origin"), headers.get("host", "")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        raise PermissionError(f"a page of {origin!r:.100} may not talk to the server at {host!r:.100}")
    if not keyed and (page or origin is not None) and not is_ip_or_localhost(host):
        raise PermissionError(
            f"without an API key, pages are served at an IP address or localhost only, not at {host!r:.100}"
        )


def is_ip_or_localhost(host: str) -> bool:
    """Return whether `host` (with or without a port) is an IP address or `localhost`."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost"
    return True


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def tls_context(certificate: Path, key: Path | None = None) -> ssl.SSLContext:
    """Return a TLS context with this certificate (chain) and its key, which may be in the same file.

    Raises:
        ValueError: they cannot be read, or do not belong together.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    load_certificate(context, certificate, key)
    return context


def load_certificate(context: ssl.SSLContext, certificate: Path, key: Path | None = None) -> None:
    """Put a certificate into a TLS context, which may be in use: later connections see the new one.

    Raises:
        ValueError: certificate and key cannot be read, or do not belong together.
    """
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        both = f"certificate {certificate} and key {key or 'in the same file'}"
        raise ValueError(f"no TLS with {both}: {error}") from error
