"""The live view: the report page, served on loopback, redrawn as the run goes on.

Only this machine is answered, under a name of its own: a web page elsewhere that has a name resolve to
127.0.0.1 is refused, and none may read what is served here.
"""

import hashlib
import json
import sys
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any

from evo.errors import EvoError
from evo.lineage.read.lineage import Lineage
from evo.report.facts import facts
from evo.report.page import page
from evo.watch.changes import Changes, check_watchable

LOOPBACK = "127.0.0.1"
OUR_NAMES = frozenset({LOOPBACK, "localhost"})  # any port: it may come through `ssh -L`
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "frame-ancestors 'none'",  # beside the page's own, which is in it
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of a run, as facts and as the bytes of ``data.json`` with their ETag."""

    facts: dict[str, Any]
    body: bytes
    tag: str


class Live:
    """The run as it was read last; read again when it has changed, by one request for all."""

    def __init__(self, run_dir: Path) -> None:
        check_watchable(run_dir)
        self._run_dir = run_dir
        self._lineage = Lineage(run_dir)
        self._changes = Changes(run_dir)
        self._lock = Lock()
        self._reading: Reading | None = None

    @property
    def known(self) -> dict[str, Any] | None:
        """The facts of the last reading, at once; None before the first."""
        return None if self._reading is None else self._reading.facts

    def reading(self) -> Reading:
        """What is known now.

        Raises:
            EvoError: nothing could be read of the run, not even that something is damaged.
        """
        with self._lock:
            if self._changes.due() or self._reading is None:
                if self._changes.rewritten:
                    self._lineage = Lineage(self._run_dir)
                began = monotonic()
                self._reading = self._read(self._reading)
                self._changes.rest(monotonic() - began)
            return self._reading

    def _read(self, before: Reading | None) -> Reading:
        found: dict[str, Any]
        try:
            check_watchable(self._run_dir)
            found = dict(facts(self._lineage))
        except (EvoError, OSError) as error:
            if before is None:
                raise
            found = before.facts | {"problem": f"{error}. What was there before is shown"}
        body = json.dumps(found, allow_nan=False, separators=(",", ":")).encode()
        return Reading(found, body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def make_server(run_dir: Path, port: int) -> ThreadingHTTPServer:
    """A server of the run's live view on loopback; port 0 is any that is free. ``serve_forever`` runs it.

    Raises:
        EvoError: there is no run, or the port can't be had.
    """
    live = Live(run_dir)

    class Handler(_Handler):
        run = live

    try:
        server = _Server((LOOPBACK, port), Handler)
    except OSError as error:
        raise EvoError(
            f"--port {port}: {error.strerror}. Give another one, or none for any that is free"
        ) from error
    return server


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # with five, those that come at once are kept waiting for seconds

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A browser that closes a connection is nobody's fault.
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    run: Live
    protocol_version = "HTTP/1.1"
    timeout = 30.0  # of a connection that says nothing

    def do_GET(self) -> None:
        if self._host() not in OUR_NAMES:
            self._send(HTTPStatus.MISDIRECTED_REQUEST, "text/plain", b"This is 127.0.0.1.\n")
        elif self.path == "/":
            # What is known, so that the page is there at once: it asks for the rest itself.
            text = page(self.run.known, live=True)
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", text.encode())
        elif self.path == "/data.json":
            self._send_data()
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"Here are / and /data.json.\n")

    def _send_data(self) -> None:
        try:
            now = self.run.reading()
        except (EvoError, OSError) as error:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", f"{error}\n".encode())
            return
        if self.headers.get("If-None-Match") == now.tag:
            self._send(HTTPStatus.NOT_MODIFIED, "application/json", b"", now.tag)
        else:
            self._send(HTTPStatus.OK, "application/json", now.body, now.tag)

    def do_HEAD(self) -> None:
        self.do_GET()

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        if self.command in ("GET", "HEAD"):
            return True
        self.close_connection = True  # what was sent with it is not read
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"GET and HEAD only.\n")
        return False

    def _host(self) -> str:
        name, _, _ = self.headers.get("Host", "").partition(":")
        return name.lower()

    def _send(self, status: HTTPStatus, kind: str, body: bytes, tag: str = "") -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if tag:
            self.send_header("ETag", tag)
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        if status is not HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "evo"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: each poll would be a line."""
