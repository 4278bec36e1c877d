"""Errors of the hub, the network or the disk, as one line with the repository and the remedy."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from moebench.errors import StageError

LOGIN = "`hf auth login` or set HF_TOKEN"


def host_of(endpoint: str) -> str:
    """Host and port of an endpoint, without a user name or password in it."""
    parts = urlsplit(endpoint)
    return (parts.hostname or endpoint) + (f":{parts.port}" if parts.port else "")


@dataclass(frozen=True)
class Asked:
    """A request to the hub: ``commit`` if the revision is pinned already; ``folder`` once it is known."""

    repo: str
    revision: str
    commit: str | None
    endpoint: str
    token: str | None
    repo_type: str = "model"

    @property
    def page(self) -> str:
        """The repository's page, for people."""
        return f"{self.endpoint}/{'datasets/' if self.repo_type == 'dataset' else ''}{self.repo}"


def explain(error: Exception, asked: Asked, folder: Path | None = None) -> StageError:
    """The error as a StageError of one line, which never contains the token."""
    error = _cause(error)
    if isinstance(error, StageError):
        text = str(error)
    elif isinstance(error, OfflineModeIsEnabled):
        text = "HF_HUB_OFFLINE is set, so the hub is not contacted; unset it to stage"
    elif isinstance(error, HfHubHTTPError):
        text = _refusal(error, asked)
    elif isinstance(error, httpx2.HTTPError | httpx2.InvalidURL):
        text = _unreachable(error, asked.endpoint)
    elif isinstance(error, OSError) and error.errno:
        text = _disk(error, folder)
    elif isinstance(error, UnicodeError):
        text = f"HF_TOKEN contains invalid characters; {LOGIN} again"
    elif folder or isinstance(error, OSError):  # of Xet, or of a file that came short
        text = f"the download failed ({_first_line(error)}); run this again: complete files are kept"
    else:
        text = (
            f"the response of {host_of(asked.endpoint)} is not a hub's ({type(error).__name__}); "
            "check HF_ENDPOINT, and whether a proxy or a login page is in between"
        )
    line = " ".join(text.split())
    if asked.token:
        line = line.replace(asked.token, "***")
    return StageError(line if line.startswith(f"{asked.repo}:") else f"{asked.repo}: {line}")


def passing_reason(error: Exception) -> str | None:
    """A short description of a temporary failure; None for any other."""
    error = _cause(error)
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return f"the hub answered HTTP {status}" if status in (408, 429) or status >= 500 else None
    if isinstance(error, httpx2.LocalProtocolError | httpx2.UnsupportedProtocol):
        return None
    if isinstance(error, httpx2.TransportError | RuntimeError) or (isinstance(error, OSError) and not error.errno):
        return f"the connection failed ({_first_line(error)})"
    return None


def _cause(error: Exception) -> Exception:
    """The underlying error when huggingface_hub reports that a file is neither on the hub nor in its cache."""
    found = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else None
    return found if isinstance(found, Exception) else error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _refusal(error: HfHubHTTPError, asked: Asked) -> str:
    """The hub answered, and refused."""
    page, has_token = asked.page, asked.token is not None
    status = error.response.status_code
    words = (error.response.headers.get("X-Error-Message") or "").strip().rstrip(".")
    said = f" ({words})" if words else ""
    if isinstance(error, GatedRepoError):
        if has_token:
            return f"gated, and your account has no access: accept the licence at {page} with the account of your token"
        return f"gated, and there is no token: accept the licence at {page}, then {LOGIN}"
    if isinstance(error, RevisionNotFoundError):
        if asked.commit not in (None, asked.revision):
            gone = f"the hub no longer has commit {asked.commit}, to which {asked.revision!r} is pinned"
            return f"{gone}: `moebench stage --update` pins the newest one"
        return f"no revision {asked.revision!r}; its branches, tags and commits are at {page}/tree/main"
    if isinstance(error, DisabledRepoError):
        return "the hub has disabled this repository; choose another one"
    if status == 401 and has_token:
        return f"the hub does not accept your token{said}: {LOGIN} again, or remove it if the model is public"
    if status == 401 or (isinstance(error, RepositoryNotFoundError) and not has_token):
        return f"no such repository, or a private one: check the name at {page}; if it is private, {LOGIN}"
    if isinstance(error, RepositoryNotFoundError):
        return f"no such repository, or your token may not see it: check the name at {page}"
    if status == 403:
        return f"your token lacks the permission to read it{said}: change that at {asked.endpoint}/settings/tokens"
    if status == 429:
        return f"the hub reports too many requests: run this again in a few minutes, or {LOGIN} first"
    later = "run this again later" if status >= 500 else "see the hub's status, and HF_ENDPOINT"
    return f"{host_of(asked.endpoint)} answered HTTP {status}{said}: {later}"


def _unreachable(error: Exception, endpoint: str) -> str:
    """The hub did not answer, or the connection broke."""
    if isinstance(error, httpx2.LocalProtocolError):  # its message quotes the header, and thus the token
        return f"the request cannot be sent: HF_TOKEN contains invalid characters; {LOGIN} again"
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.InvalidURL):
        return f"HF_ENDPOINT is {host_of(endpoint)!r}, which is not the address of a hub (https://...)"
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return f"the certificate of {host_of(endpoint)} is not trusted here: set SSL_CERT_FILE to the file with your site's CA"
    return (
        f"{host_of(endpoint)} cannot be reached ({_first_line(error)}): check the network, the proxy (HTTPS_PROXY) and "
        "HF_ENDPOINT; compute nodes often have no internet access, so stage on a login node; run again: complete "
        "files are kept"
    )


def _disk(error: OSError, folder: Path | None) -> str:
    """The file system raised an error."""
    where = f" at {error.filename or folder}" if error.filename or folder else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        kind = "the disk is full" if error.errno == errno.ENOSPC else "your disk quota is used up"
        return f"{kind}{where}: free space and run this again: complete files are kept"
    return f"cannot write{where}: {error.strerror or error}"
