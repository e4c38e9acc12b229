"""Who may talk to a server: API keys, the origins of web pages, TLS.

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
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

MIN_KEY_LENGTH = 8


class ApiKeys:
    """The API keys of a server; without any, everyone who reaches it may talk to it."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._keys = [key.encode() for key in keys]
        if any(len(key) < MIN_KEY_LENGTH for key in self._keys):
            raise ValueError(
                f"an API key needs {MIN_KEY_LENGTH} characters or more; make one with: openssl rand -hex 16"
            )

    @classmethod
    def read(cls, path: Path) -> "ApiKeys":
        """Read a file with one key per line; empty lines and lines that begin with # are ignored.

        Raises:
            ValueError: the file holds no key.
        """
        lines = [line.strip() for line in path.read_text().splitlines()]
        if not (keys := [line for line in lines if line and not line.startswith("#")]):
            raise ValueError(f"no API key in {path}; write one per line")
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def owner(self, key: str | None) -> str:
        """Return a name for the holder of this key; where the server has no keys, all clients share one name.

        Raises:
            PermissionError: the server has keys, and this is not one of them.
        """
        if not self._keys:
            return ""
        if key is None:
            raise PermissionError("this server needs an API key: send the header 'Authorization: Api-Key YOUR-KEY'")
        given = key.encode(errors="surrogatepass")  # JSON can carry half a character, which UTF-8 cannot
        # Compare with every key, each in constant time: how long it takes says nothing about the keys.
        matches = [hmac.compare_digest(given, known) for known in self._keys]
        if not any(matches):
            raise PermissionError("this server does not know this API key")
        return hashlib.sha256(given).hexdigest()[:16]


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
