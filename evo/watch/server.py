"""The live view: the report page, served on the loopback interface and redrawn while the run continues.

A request must name this machine as its host. That refuses web pages from elsewhere whose host name
resolves to 127.0.0.1 (DNS rebinding); the headers keep other origins from reading the answers.
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
from evo.watch.changes import ChangeDetector, check_watchable

LOOPBACK = "127.0.0.1"
OUR_NAMES = frozenset({LOOPBACK, "localhost"})  # any port: it may be forwarded by `ssh -L`
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "frame-ancestors 'none'",  # in addition to the policy in the page
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class PublishedFacts:
    """The facts of a run, and the same as the bytes of ``data.json`` with their ETag."""

    facts: dict[str, Any]
    body: bytes
    tag: str


class LiveRun:
    """The last reading of a run, renewed by the first request after a change."""

    def __init__(self, run_dir: Path) -> None:
        check_watchable(run_dir)
        self._run_dir = run_dir
        self._lineage = Lineage(run_dir)
        self._changes = ChangeDetector(run_dir)
        self._lock = Lock()
        self._reading: PublishedFacts | None = None

    @property
    def known(self) -> dict[str, Any] | None:
        """The facts of the last reading, without reading again; None before the first."""
        return None if self._reading is None else self._reading.facts

    def reading(self) -> PublishedFacts:
        """The current facts; reads the run again if it has changed.

        Raises:
            EvoError: the run cannot be read and was never read before.
        """
        with self._lock:
            if self._changes.due() or self._reading is None:
                if self._changes.rewritten:
                    self._lineage = Lineage(self._run_dir)
                began = monotonic()
                self._reading = self._read(self._reading)
                self._changes.rest(monotonic() - began)
            return self._reading

    def _read(self, before: PublishedFacts | None) -> PublishedFacts:
        found: dict[str, Any]
        try:
            check_watchable(self._run_dir)
            found = dict(facts(self._lineage))
        except (EvoError, OSError) as error:
            if before is None:
                raise
            found = before.facts | {
                "problem": f"{error}. The page shows the last successful reading"
            }
        body = json.dumps(found, allow_nan=False, separators=(",", ":")).encode()
        return PublishedFacts(found, body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def make_server(run_dir: Path, port: int) -> ThreadingHTTPServer:
    """A server of the live view on the loopback interface; call its ``serve_forever``. Port 0 is any free port.

    Raises:
        EvoError: ``run_dir`` holds no run, or the port cannot be used.
    """
    live = LiveRun(run_dir)

    class Handler(_Handler):
        run = live

    try:
        server = _Server((LOOPBACK, port), Handler)
    except OSError as error:
        raise EvoError(
            f"--port {port}: {error.strerror}. Name another port, or none to use any free one"
        ) from error
    return server


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64  # with the default of 5, simultaneous requests wait for seconds

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A browser may close a connection at any time.
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    run: LiveRun
    protocol_version = "HTTP/1.1"
    timeout = 30.0  # seconds, of an idle connection

    def do_GET(self) -> None:
        if self._host() not in OUR_NAMES:
            self._send(HTTPStatus.MISDIRECTED_REQUEST, "text/plain", b"This is 127.0.0.1.\n")
        elif self.path == "/":
            # The last known facts, so that the page appears at once; it then fetches data.json.
            text = page(self.run.known, live=True)
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", text.encode())
        elif self.path == "/data.json":
            self._send_data()
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"Only / and /data.json exist.\n")

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
        self.close_connection = True  # the request's body is not read
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
        """Log nothing: each poll would add a line."""
