"""The user's token of a Ray cluster: where Ray itself looks for it, and who else can read it.

Free of Ray, so that a refusal takes no time. A token is never printed, logged or recorded.
"""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

TOKEN_VARIABLE, PATH_VARIABLE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
HOW_TO_GET_ONE = (
    "Copy the cluster's token to ~/.ray/auth_token, readable by you alone (mode 0600), or set "
    f"{PATH_VARIABLE} or {TOKEN_VARIABLE}"
)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Token:
    """A token and where it was found. Its text does not show in a repr."""

    text: str = field(repr=False)
    source: str


def find_token() -> Token | None:
    """The user's token, in Ray's order: the variable, the file a variable names, ~/.ray/auth_token.

    A file that others can read is warned about. It is not refused: secrets that Kubernetes mounts
    are often like this.
    """
    if text := os.environ.get(TOKEN_VARIABLE, "").strip():
        return Token(text, TOKEN_VARIABLE)
    named = os.environ.get(PATH_VARIABLE)
    path = Path(named).expanduser() if named else Path.home() / ".ray" / "auth_token"
    try:
        text = path.read_text(encoding="utf-8").strip()
        mode = path.stat().st_mode & 0o777
    except (OSError, UnicodeDecodeError):
        return None
    if mode & 0o077:
        _LOG.warning(
            "%s: others on this machine can read the cluster's token (mode %04o), and who has it can "
            "run code on the cluster. Run: chmod 600 %s",
            *(path, mode, path),
        )
    return Token(text, str(path)) if text else None


def refusal(where: str, token: Token | None) -> str:
    """What to say when a cluster turned the user away."""
    if token is None:
        return f"{where} wants a token, and none was found. {HOW_TO_GET_ONE}"
    return (
        f"{where} refuses the token from {token.source}: it is that of another cluster, or an old one. "
        f"{HOW_TO_GET_ONE}"
    )
