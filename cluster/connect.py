"""The one way to a Ray: one of our own on this machine, or a running cluster. Import ray from here.

Ray's ports listen on every interface, so even a private Ray runs with authentication on; its random
token lives in the environment of our processes, not in a file. That is set when this module is
imported, and taken back before a cluster is joined: that has its own token.
"""

import logging
import os
import secrets
import socket
from queue import Empty, Queue
from threading import Thread
from typing import Any

import ray as ray

from cluster.credentials import PATH_VARIABLE, TOKEN_VARIABLE, find_token, refusal
from cluster.errors import PoolError

OBJECT_STORE_BYTES = 128 * 2**20  # requests and scores only: weights never pass through it
PROBE_S = 1.5  # to find out whether a cluster is there and takes us: Ray itself waits 20 to 40 s

_MODE = "RAY_AUTH_MODE"
_OURS: dict[str, str] = {}  # of the settings below, those that the user had left open
_core: Any = ray._raylet  # Ray's core, without types


def _apply_settings() -> None:
    """Have Ray's core read the environment again, as Ray's own _enable_token_auth does."""
    _core.Config.initialize("")
    _core.AuthenticationTokenLoader.instance().reset_cache()


if not ray.is_initialized():
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_preload_python_modules", "torch,transformers")
    if _MODE not in os.environ:
        os.environ[_MODE] = _OURS[_MODE] = "token"
    if os.environ[_MODE] == "token" and not {TOKEN_VARIABLE, PATH_VARIABLE} & {*os.environ}:
        os.environ[TOKEN_VARIABLE] = _OURS[TOKEN_VARIABLE] = secrets.token_hex(32)
    _apply_settings()


def start_ray(cpus: int) -> None:
    """Start a Ray of our own on this machine, closed to everybody without its random token.

    Raises:
        PoolError: the user has switched authentication off.
    """
    if os.environ.get(_MODE) != "token":
        raise PoolError(
            f"RAY_AUTH_MODE={os.environ.get(_MODE)}: without authentication, everybody who reaches this "
            "machine could run code on it. Unset it, or call ray.init() yourself before evo"
        )
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

    ``auto`` is the cluster of the job that this process is, of ``RAY_ADDRESS``, or of this machine.

    Raises:
        PoolError: as `check_cluster`; this machine is no node of it; its Ray is of another version.
    """
    where = check_cluster(address)
    try:
        # Under a job Ray takes address and runtime environment from variables that it has set.
        ray.init(
            address=None if _in_job() and address == "auto" else where,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise PoolError(
            f"{where}: the cluster takes us, but can't be joined from here: {_first_line(error)}. "
            "This must be run on one of its nodes, with the same versions of Ray and Python; from "
            "elsewhere use evo submit"
        ) from error


def check_cluster(address: str) -> str:
    """The ``HOST:PORT`` of the cluster at ``address``, once it has answered and taken our token.

    Raises:
        PoolError: within two seconds, if nobody answers there, or refuses us; says why.
    """
    _take_users_settings()
    where = _resolve(address)
    token = find_token()
    answer: Queue[BaseException | None] = Queue()
    Thread(target=_knock, args=(where, answer), daemon=True).start()
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


def _take_users_settings() -> None:
    """Undo what was set for a Ray of our own, and follow Ray's rule: a token switches tokens on."""
    for name, value in _OURS.items():
        if os.environ.get(name) == value:
            del os.environ[name]
    _OURS.clear()
    if _MODE not in os.environ and find_token() is not None:
        os.environ[_MODE] = "token"
    _apply_settings()


def _resolve(address: str) -> str:
    if "://" in address:
        raise PoolError(
            f"{address}: is no HOST:PORT of a cluster's head. An http address is the dashboard's, for "
            "evo submit; Ray's client protocol (ray://) is not used"
        )
    try:
        found: str = ray._private.services.canonicalize_bootstrap_address_or_die(address)
    except (ConnectionError, ValueError, OSError) as error:
        raise PoolError(
            f"--address {address}: {_first_line(error)}. Give HOST:PORT as `ray start --head` printed it"
        ) from error
    return found


def _knock(where: str, answer: "Queue[BaseException | None]") -> None:
    host, _, port = where.rpartition(":")
    try:
        # Ray's client would wait 40 s for a port that is closed.
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_S).close()
        if os.environ.get(_MODE) == "token" and find_token() is None:  # and abort without a token
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
