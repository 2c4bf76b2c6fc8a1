"""Start a private Ray on this machine, or join a running cluster. Import ray from here.

Ray's ports listen on every interface, so even a private Ray runs with authentication on. Its random
token is in the environment of its processes, not in a file. The user's own token is restored before a
cluster is joined.
"""

import logging
import os
import re
import secrets
import socket
from queue import Empty, Queue
from threading import Thread
from typing import Any

import ray as ray

from cluster.errors import PoolError
from cluster.ray.credentials import MODE_VARIABLE, TOKEN_VARIABLE, Token, find_token, refusal

OBJECT_STORE_BYTES = 128 * 2**20  # requests and scores only: weights never pass through it
PROBE_S = 1.5  # time for a cluster to answer and accept the token; Ray itself waits 20 to 40 s

_users: dict[str, str | None] = {}  # the user's settings, while a private Ray replaces them
_HOST_PORT = re.compile(r"[^\s:/]+:\d{1,5}|\[[0-9A-Fa-f:.]+\]:\d{1,5}")
_core: Any = ray._raylet  # Ray's core, without types


def _apply_settings() -> None:
    """Make Ray's core read the environment again, as Ray's own _enable_token_auth does."""
    _core.Config.initialize("")
    _core.AuthenticationTokenLoader.instance().reset_cache()


if not ray.is_initialized():
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_preload_python_modules", "torch,transformers")


def start_ray(cpus: int) -> None:
    """Start a private Ray on this machine, protected by a random token.

    Raises:
        PoolError: the user has switched authentication off.
    """
    if (mode := os.environ.get(MODE_VARIABLE, "token")) != "token":
        raise PoolError(
            f"RAY_AUTH_MODE={mode}: without authentication, everybody who can reach this "
            "machine could run code on it. Unset it, or call ray.init() yourself before evo"
        )
    _take_own_settings()
    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def join_ray(address: str) -> None:
    """Join the running cluster at ``address``: ``HOST:PORT`` of its head, or ``auto``.

    ``auto`` is the cluster of the Ray job that this process belongs to, of ``RAY_ADDRESS``, or of this machine.

    Raises:
        PoolError: as `check_cluster`; this machine is not a node of it; its Ray has another version.
    """
    where = check_cluster(address)
    try:
        # Inside a job, Ray reads address and runtime environment from variables that it has set.
        ray.init(
            address=None if _in_job() and address == "auto" else where,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise PoolError(
            f"{where}: the cluster accepts the token, but can't be joined from here: {_first_line(error)}. "
            "Run this on one of its nodes, with the same versions of Ray and Python; elsewhere use "
            "evo submit"
        ) from error


def check_cluster(address: str) -> str:
    """The ``HOST:PORT`` of the cluster at ``address``, after it answered and accepted the user's token.

    Raises:
        PoolError: within two seconds, if no cluster answers or the token is refused.
    """
    where = _resolve(address)
    token = _take_users_settings()
    answer: Queue[BaseException | None] = Queue()
    Thread(target=_probe, args=(where, token is not None, answer), daemon=True).start()
    try:
        error = answer.get(timeout=PROBE_S)
    except Empty:
        error = TimeoutError("no answer")
    if isinstance(error, ray.exceptions.AuthenticationError):
        raise PoolError(refusal(where, token))
    if error is not None:
        raise PoolError(
            f"{where}: no Ray cluster answers there ({error}). Give the address that `ray start --head` "
            "printed, HOST:6379 as a rule, or `auto` on one of the cluster's nodes"
        )
    return where


def _take_own_settings() -> None:
    """Use a random token in place of the user's."""
    if _users:
        return
    for name, own in ((MODE_VARIABLE, "token"), (TOKEN_VARIABLE, secrets.token_hex(32))):
        _users[name] = os.environ.get(name)
        os.environ[name] = own
    _apply_settings()


def _take_users_settings() -> Token | None:
    """Restore and return the user's token; it enables tokens unless RAY_AUTH_MODE is set, as in Ray."""
    for name, value in _users.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    _users.clear()
    token = find_token()
    if token is not None:
        os.environ.setdefault(MODE_VARIABLE, "token")
    _apply_settings()
    return token


def _resolve(address: str) -> str:
    if "://" in address:
        raise PoolError(
            f"{address}: not the HOST:PORT of a cluster's head. An http address is the dashboard's, for "
            "evo submit; Ray's client protocol (ray://) is not used"
        )
    # With other values, such as `local` or nothing, Ray would look for a cluster itself.
    if address != "auto" and not _HOST_PORT.fullmatch(address):
        raise PoolError(
            f"{address!r}: not the address of a cluster. Give HOST:PORT as `ray start --head` printed it, or "
            "`auto` on one of the cluster's nodes"
        )
    try:
        found: str = ray._private.services.canonicalize_bootstrap_address_or_die(address)
    except (ConnectionError, ValueError, OSError) as error:
        raise PoolError(
            f"{address}: {_first_line(error).rstrip('.')}. Give HOST:PORT as `ray start --head` printed it"
        ) from error
    return found


def _probe(where: str, has_token: bool, answer: "Queue[BaseException | None]") -> None:
    host, _, port = where.rpartition(":")
    try:
        # Ray's client would wait 40 s for a port that is closed.
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_S).close()
        if (
            os.environ.get(MODE_VARIABLE) == "token" and not has_token
        ):  # Ray would abort the process
            raise ray.exceptions.AuthenticationError("no token")
        _core.GcsClient(address=where)
    except (OSError, ValueError, ray.exceptions.RayError) as error:
        answer.put(error)
    else:
        answer.put(None)


def _in_job() -> bool:
    return "RAY_JOB_CONFIG_JSON" in os.environ


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
