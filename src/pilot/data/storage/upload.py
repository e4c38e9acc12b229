"""A folder of this machine as a repository of the Hugging Face Hub: all of its files in one commit, or nothing."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pilot.data.storage.remote import HUB_SERVER, check_reachable

NAME = re.compile(r"[\w.-]+/[\w.-]+")
LOG_IN = "log in with a token that may write: hf auth login"


def check_repo_name(repo: str) -> str:
    """Return the name of a repository, `owner/name`, also where it is given as `hf://…`.

    Raises:
        ValueError: it is none.
    """
    name = re.sub(r"^hf://((models|datasets)/)?", "", repo).rstrip("/")
    if not NAME.fullmatch(name):
        raise ValueError(f"'{repo}' is no repository of the hub; write owner/name")
    return name


def upload(
    folder: str | Path,
    repo: str,
    *,
    kind: Literal["model", "dataset"],
    files: Iterable[str],
    texts: Mapping[str, str],
    message: str,
    private: bool = False,
) -> str:
    """Upload `files` of a folder, and `texts` by the names that they get, as one commit; return the page's address.

    The repository is made if there is none; files in it that are not uploaded stay.

    Raises:
        ImportError: the library of the hub is not installed.
        ConnectionError: the hub does not answer.
        PermissionError: nobody is logged in, or not as somebody who may write there.
    """
    try:
        import huggingface_hub as hub
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise ImportError("the hub needs huggingface_hub: pip install 'pilot[hub]'") from error
    endpoint = os.environ.get("HF_ENDPOINT") or None
    check_reachable(endpoint or HUB_SERVER, f"hf://{repo}")
    api = hub.HfApi(endpoint=endpoint, library_name="pilot")
    operations: list[Any] = [
        hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(Path(folder) / name)) for name in files
    ]
    operations += [hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=t.encode()) for name, t in texts.items()]
    try:
        api.create_repo(repo, repo_type=kind, private=private, exist_ok=True)
        commit = api.create_commit(repo, operations, repo_type=kind, commit_message=message)
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise PermissionError(f"the hub does not let you write to {repo}; {LOG_IN}") from error
        raise ConnectionError(f"the hub refused {repo} ({status}): {error.server_message or error}") from error
    except hub.errors.LocalTokenNotFoundError as error:
        raise PermissionError(f"nobody is logged in to the hub; {LOG_IN}") from error
    return str(commit.repo_url)
