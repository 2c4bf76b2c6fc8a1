"""The dashboard of a cluster, which accepts jobs: whether it answers, and accepts the user's token.

Both are checked before anything is sent, within two seconds. The first request has no token, so a
cluster without authentication never receives it.
"""

import ipaddress
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

from cluster.errors import PoolError
from cluster.ray.credentials import Token, find_token, refusal

_TIMEOUTS_S = (1.0, 5.0)  # to connect, to answer: a busy head is slow to answer
_GUARDED = (401, 403)  # HTTP: no token, another token
# Ray's client would use these in place of the address in its arguments.
_ELSEWHERE = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
_CHATTY = ("ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard that accepts the user. ``token`` is None if the cluster needs none."""

    address: str
    token: Token | None


def open_dashboard(address: str, *, insecure: bool = False) -> Dashboard:
    """Check that a dashboard at ``address`` (``http://HOST:8265``) answers and accepts the user.

    Raises:
        PoolError: no dashboard answers, it refuses the token, or it needs none although it is on
            another machine and ``insecure`` is False.
    """
    address = address.rstrip("/")
    try:
        parts = urlsplit(address)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in address
    except ValueError:
        known = False
    if not known or parts.hostname is None:
        shown = address.rpartition("@")[2]  # the part before it may be a secret
        raise PoolError(
            f"--address {shown}: expected the cluster's dashboard, http://HOST:8265. (HOST:6379, the "
            "address of the head itself, is for evo run on a node of the cluster)"
        )
    answer = _ask(address, None)
    if answer.status_code == 200:
        if not _on_this_machine(parts.hostname) and not insecure:
            raise PoolError(
                f"{address}: this cluster accepts jobs without a token, so everybody who can reach it "
                "can run code as you. Start it with RAY_AUTH_MODE=token (docs/cluster.md), or give "
                "--insecure if no one else can reach it"
            )
        _check_dashboard(address, answer)
        return Dashboard(address, None)
    if answer.status_code not in _GUARDED:
        raise _no_dashboard(address, answer)
    token = find_token()
    if token is None:
        raise PoolError(refusal(address, None))
    if parts.scheme == "http" and not _on_this_machine(parts.hostname):
        _LOG.warning(
            "%s: the token crosses the network unencrypted. Use a tunnel, `ssh -L 8265:localhost:8265 "
            "HEAD`, or https",
            address,
        )
    answer = _ask(address, token)
    if answer.status_code in _GUARDED:
        raise PoolError(refusal(address, token))
    _check_dashboard(address, answer)
    return Dashboard(address, token)


@contextmanager
def job_client(dashboard: Dashboard) -> Iterator[Any]:
    """Ray's JobSubmissionClient for ``dashboard``; its errors become PoolErrors.

    Raises:
        PoolError: Ray is installed without its job client; the cluster refuses or is lost.
    """
    from cluster.ray.connect import ray

    kept = {name: os.environ.pop(name) for name in _ELSEWHERE if name in os.environ}
    # An empty one keeps Ray's client from adding a token that the cluster did not ask for.
    headers = {"Authorization": f"Bearer {dashboard.token.text}" if dashboard.token else ""}
    try:
        from ray.job_submission import JobSubmissionClient

        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        yield JobSubmissionClient(dashboard.address, headers=headers)
    except ImportError as error:
        raise _without_client() from error
    except (RuntimeError, ConnectionError, OSError, ray.exceptions.RayError) as error:
        if "ray[default]" in str(error):
            raise _without_client() from error
        raise PoolError(f"{dashboard.address}: {error}") from error
    finally:
        os.environ.update(kept)


def _without_client() -> PoolError:
    return PoolError("evo submit needs Ray's job client: pip install 'evo-models[cluster]'")


def _ask(address: str, token: Token | None) -> requests.Response:
    """Get the dashboard's version. Redirects are refused: they could send the token elsewhere."""
    headers = {"Authorization": f"Bearer {token.text}"} if token else {}
    try:
        return requests.get(
            f"{address}/api/version",
            headers=headers,
            timeout=_TIMEOUTS_S,
            allow_redirects=False,
            auth=_keep_headers,
        )
    except (requests.RequestException, UnicodeError) as error:
        raise PoolError(
            f"{address}: no Ray dashboard answers there ({type(error).__name__}). Is the cluster up, with "
            "its dashboard (pip install 'ray[default]' there), and does `curl "
            f"{address}/api/version` reach it?"
        ) from error


def _keep_headers(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Replaces the authentication of requests, which would use ~/.netrc instead of the token."""
    return request


def _check_dashboard(address: str, answer: requests.Response) -> None:
    try:
        known = answer.status_code == 200 and "ray_version" in answer.json()
    except (ValueError, TypeError):
        known = False
    if not known:
        raise _no_dashboard(address, answer)


def _no_dashboard(address: str, answer: requests.Response) -> PoolError:
    return PoolError(
        f"{address}: answers with HTTP {answer.status_code}, but it is not a Ray dashboard"
    )


def _on_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
