"""The one way to a Ray: one of our own on this machine, or a running cluster. Import ray from here.

Ray reads its settings when it is imported, and the processes that it starts inherit them. Its ports
listen on every interface, so even a private Ray runs with authentication on; its random token lives
in the environment of our processes, not in a file.
"""

import logging
import os
import secrets
import sys

from cluster.pool import PoolError

if "ray" not in sys.modules:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_preload_python_modules", "torch,transformers")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

import ray as ray

OBJECT_STORE_BYTES = 128 * 2**20  # requests and scores only: weights never pass through it


def start_ray(cpus: int) -> None:
    """Start a Ray of our own on this machine, closed to everybody without its random token.

    Raises:
        PoolError: ray was imported before this module, without authentication: too late to add it.
    """
    if os.environ.get("RAY_AUTH_MODE") != "token":
        raise PoolError(
            "ray was imported before evo, without authentication. Import evo first, set "
            "RAY_AUTH_MODE=token, or call ray.init() yourself"
        )
    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
