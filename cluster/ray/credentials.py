"""The user's token of a Ray cluster, from where Ray itself looks for it.

Does not import Ray, so that a refusal is fast. A token is never printed, logged or recorded.
"""

import logging
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from cluster.errors import PoolError

MODE_VARIABLE = "RAY_AUTH_MODE"
TOKEN_VARIABLE, PATH_VARIABLE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
HOW_TO_GET_ONE = (
    "Copy the cluster's token to ~/.ray/auth_token, readable by you alone (mode 0600), or set "
    f"{PATH_VARIABLE} or {TOKEN_VARIABLE}"
)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Token:
    """A token and where it was found. Its repr leaves the text out."""

    text: str = field(repr=False)
    source: str


def find_token() -> Token | None:
    """Find the user's token, in Ray's order: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token.

    Warns about a file that other users can read. Such a file is not refused: secrets that Kubernetes
    mounts are often like this.

    Raises:
        PoolError: the token can't be sent in a header; Ray's client would abort the process.
    """
    if text := os.environ.get(TOKEN_VARIABLE, "").strip():
        return Token(_plain(text, TOKEN_VARIABLE), TOKEN_VARIABLE)
    path = _token_file()
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        mode = path.stat().st_mode & 0o777
    except OSError:
        return None
    if text and mode & 0o077:
        _LOG.warning(
            "%s: other users of this machine can read the cluster's token (mode %04o), with which they can "
            "run code on the cluster. Run: chmod 600 %s",
            *(path, mode, path),
        )
    return Token(_plain(text, str(path)), str(path)) if text else None


def refusal(where: str, token: Token | None) -> str:
    """The error for a user whom the cluster refused."""
    if (mode := os.environ.get(MODE_VARIABLE, "token")) != "token":
        return f"{where} wants a token, and {MODE_VARIABLE}={mode} prevents sending one. Unset it"
    if token is None:
        path = _token_file()
        state = "is empty or can't be read" if path.exists() else "does not exist"
        return f"{where} wants a token, and none was found ({path} {state}). {HOW_TO_GET_ONE}"
    return (
        f"{where} refuses the token from {token.source}: it belongs to another cluster, or is an old one. "
        f"{HOW_TO_GET_ONE}"
    )


def _token_file() -> Path:
    named = os.environ.get(PATH_VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".ray" / "auth_token"


def _plain(text: str, source: str) -> str:
    if not re.fullmatch(r"[!-~]+", text):
        raise PoolError(
            f"{source}: not a token, which is one word of ASCII characters. {HOW_TO_GET_ONE}"
        )
    return text
