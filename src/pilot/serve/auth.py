"""Who may talk to a server: API keys, browsers' origins, TLS.

A key comes as openpi's client sends it (`Authorization: Api-Key KEY`), or as `Bearer KEY`. Browsers send no keys by
themselves, but any web page may make them open connections, so what comes from a page must come from our own; and where
there is no key, the page's host must be an IP address or `localhost`, which no stranger can point at us by renaming.

Headers are dicts with names in lower case.
"""

import hashlib
import hmac
import ipaddress
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit


class Keys:
    """The API keys of a server; without any, everyone who reaches it may talk to it."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._keys = [key.encode() for key in keys]
        if any(len(key) < 8 for key in self._keys):
            raise ValueError("an API key has 8 letters or more; `openssl rand -hex 16` makes one")

    @classmethod
    def read(cls, path: Path) -> "Keys":
        """One key in each line; empty lines and those that begin with # are left out.

        Raises:
            ValueError: there is none in the file.
        """
        lines = [line.strip() for line in path.read_text().splitlines()]
        if not (keys := [line for line in lines if line and not line.startswith("#")]):
            raise ValueError(f"no API key in {path}; write one in each line")
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def owner(self, key: str | None) -> str:
        """A name for who has this key; all are one where there are no keys.

        Raises:
            PermissionError: a key is needed, and this is none.
        """
        if not self._keys:
            return ""
        if key is None:
            raise PermissionError("this server needs an API key: send the header 'Authorization: Api-Key YOUR-KEY'")
        said = key.encode(errors="surrogatepass")  # JSON can say what is no text
        matches = [hmac.compare_digest(said, known) for known in self._keys]  # all of them: time tells nothing
        if not any(matches):
            raise PermissionError("this API key is not known here")
        return hashlib.sha256(said).hexdigest()[:16]


def key_of(headers: Mapping[str, str]) -> str | None:
    kind, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if kind.lower() in ("api-key", "bearer") and key.strip() else None


def check_origin(headers: Mapping[str, str], *, keyed: bool, page: bool = False) -> None:
    """Refuse what another site's page makes a browser send. `page`: it is read by a page, even if it names no origin.

    Raises:
        PermissionError: the page is not ours, or is reached by a name that anyone could have given us.
    """
    origin, host = headers.get("origin"), headers.get("host", "")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        raise PermissionError(f"a page of {origin!r:.100} may not talk to the server at {host!r:.100}")
    if not keyed and (page or origin is not None) and not is_literal(host):
        raise PermissionError(
            f"without an API key, pages are served at an IP address or localhost only, not at {host!r:.100}"
        )


def is_literal(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost"
    return True


def tls_context(certificate: Path, key: Path | None = None) -> ssl.SSLContext:
    """TLS with this certificate (chain) and its key, which may be in the same file.

    Raises:
        ValueError: they cannot be read, or do not belong together.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    load_certificate(context, certificate, key)
    return context


def load_certificate(context: ssl.SSLContext, certificate: Path, key: Path | None = None) -> None:
    """Also while serving: connections made from then on see the new one."""
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        both = f"certificate {certificate} and key {key or 'in the same file'}"
        raise ValueError(f"no TLS with {both}: {error}") from error
