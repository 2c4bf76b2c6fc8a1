"""The live view: a run is followed from its folder, in a real browser and in a terminal."""

import http.client
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from patience import PATIENCE_S
from rich.console import Console
from toy_runs import run, task
from toys import toy_config
from warm_evo import evo as evo_command

import evo.watch.server as server_module
from evo.errors import EvoError
from evo.evolution import Evolution
from evo.lineage.read.lineage import Lineage
from evo.run_dir import RunDir
from evo.watch.server import make_server
from evo.watch.snapshot import snapshot
from evo.watch.terminal import picture, snapshots, sparkline

CHROMIUM = shutil.which("chromium")
CLI = (sys.executable, "-c", "from evo.cli import main; main()")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    run(toy_config(folder / "f", algorithm={"name": "genome"}), folder / "run")
    return folder / "run"


@pytest.fixture
def stopped(finished, tmp_path):
    """A run that was stopped after its fifth generation."""
    with Evolution(toy_config(tmp_path / "f"), tmp_path / "run") as evolution:
        for generation in evolution:
            if generation.number == 4:
                break
    return tmp_path / "run"


@contextmanager
def served(run_dir):
    """The port of a live view in this process."""
    with make_server(run_dir, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def ask(port, path="/data.json", method="GET", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def awaited(look, right):
    """What ``look`` gives once it is ``right``."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = look()
        if right(found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_the_page_and_its_data_and_nothing_else_are_served(finished):
    with served(finished) as port:
        status, headers, body = ask(port, "/")
        assert status == 200
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert b'data-live="true"' in body
        status, headers, body = ask(port)
        found = json.loads(body)
        assert (found["run"]["state"], found["run"]["evaluations"]) == ("finished", 60)
        assert found["headline"]["split"] == "test"
        for path in (
            "/summary.json",
            "/../config.json",
            "/data.json?x",
            "/favicon.ico",
        ):
            assert ask(port, path)[0] == 404
        status, with_head, body = ask(port, method="HEAD")
        assert (status, body) == (200, b"")
        assert with_head["Content-Length"] == headers["Content-Length"]


def test_what_has_not_changed_is_not_sent_again(finished):
    with served(finished) as port:
        tag = ask(port)[1]["ETag"]
        assert ask(port, If_None_Match=tag)[::2] == (304, b"")
        assert ask(port, If_None_Match='"another"')[0] == 200


def test_facts_are_computed_once_for_everybody_who_asks(finished, monkeypatch):
    computed = []

    def counted(lineage):
        computed.append(1)
        return real(lineage)

    real = server_module.facts
    monkeypatch.setattr(server_module, "facts", counted)
    with served(finished) as port, ThreadPoolExecutor(8) as pool:
        tags = {headers["ETag"] for _, headers, _ in pool.map(lambda _: ask(port), range(24))}
    assert len(tags) == 1
    assert len(computed) == 1


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_names_that_others_gave_to_this_machine_are_refused(host, finished):
    """A page of theirs would be of the same origin, and could read everything."""
    with served(finished) as port:
        for path in ("/", "/data.json"):
            status, _, body = ask(port, path, Host=host)
            assert status == 421
            assert b"evaluations" not in body


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "LOCALHOST"])
def test_names_of_this_machine_are_answered_also_through_a_tunnel(host, finished):
    with served(finished) as port:
        assert ask(port, Host=host)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_nothing_but_reading_is_allowed(method, finished):
    with served(finished) as port:
        status, headers, _ = ask(port, method=method)
        assert status == 405
        assert headers["Allow"] == "GET, HEAD"


def test_pages_of_others_can_neither_read_nor_frame_it(finished):
    with served(finished) as port:
        for path in ("/", "/data.json"):
            headers = ask(port, path, Origin="http://evil.example")[1]
            assert not [name for name in headers if name.lower().startswith("access-control")]
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"


def test_it_listens_on_loopback_only(finished):
    with make_server(finished, 0) as server:
        assert server.socket.getsockname()[0] == "127.0.0.1"


def test_damage_is_told_and_so_is_its_repair(stopped):
    def problem(port):
        return json.loads(ask(port)[2])["problem"]

    with served(stopped) as port:
        assert problem(port) is None
        path = stopped / "lineage" / "evaluations" / "000002.parquet"
        data, times = path.read_bytes(), path.stat()
        path.write_bytes(data[:-20] + b"x" + data[-19:])
        found = awaited(lambda: problem(port), lambda p: p is not None)
        assert str(path) in found
        assert "damaged" in found
        path.write_bytes(data)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        awaited(lambda: problem(port), lambda p: p is None)


def test_a_run_is_followed_from_before_it_has_begun(tmp_path):
    lock = RunDir(tmp_path / "run").lock()
    with served(tmp_path / "run") as port:
        first = json.loads(ask(port)[2])
        assert (first["run"]["state"], first["run"]["evaluations"]) == ("starting", 0)
        assert first["problem"] is None
        lock.release()
        with Evolution(toy_config(tmp_path / "f"), tmp_path / "run") as evolution:
            next(iter(evolution))
            found = awaited(lambda: json.loads(ask(port)[2]), lambda f: f["run"]["generations"])
            assert found["problem"] is None
            assert found["run"]["state"] == "running"
        awaited(lambda: json.loads(ask(port)[2]), lambda f: f["run"]["state"] == "stopped")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(EvoError, match="no run here"):
        make_server(tmp_path, 0)


def test_a_folder_of_runs_is_refused_with_the_name_of_one(finished):
    with pytest.raises(EvoError, match=f"no run here.*such as {finished}$"):
        make_server(finished.parent, 0)


def test_of_a_run_that_is_deleted_what_was_there_is_shown(stopped):
    def look():
        return json.loads(ask(port)[2])

    with served(stopped) as port:
        before = look()
        shutil.rmtree(stopped)
        now = awaited(look, lambda facts: facts["problem"])
        assert "no run here" in now["problem"]
        assert now["scores"] == before["scores"] != []


def test_the_terminal_ends_when_the_run_is_deleted(tmp_path):
    lock = RunDir(tmp_path / "run").lock()
    seen = snapshots(tmp_path / "run")
    assert next(seen).status.state == "starting"
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(EvoError, match="no run here"):
        next(seen)
    lock.release()


def test_a_port_in_use_is_named(finished):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(EvoError, match=rf"--port {port}: .*in use.*another"):
            make_server(finished, port)


@contextmanager
def watching(run_dir):
    """`evo watch` in a process of its own; its address and the process."""
    command = [*CLI, "watch", str(run_dir), "--no-open"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=unbuffered()
    )
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield re.search(r"http://127.0.0.1:\d+/", line)[0], process
    finally:
        process.kill()
        process.wait()


def unbuffered(**more):
    return os.environ | {"PYTHONUNBUFFERED": "1", **more}


def test_ctrl_c_ends_it_as_a_success(finished):
    with watching(finished) as (_, process):
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE_S) == 0
        assert process.stderr.read() == ""


def test_watching_needs_neither_torch_nor_ray(finished):
    code = (
        "import sys; from evo.cli import main\n"
        f"sys.argv = ['evo', 'watch', '--terminal', '--once', {str(finished)!r}]\n"
        "main()\n"
        "import evo.watch.server\n"
        "assert not {'torch', 'ray', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "finished" in done.stdout


def begin(folder, evaluations):
    """`evo run` in a process of its own, slow until there is a file ``folder/quick``."""
    tasks = [task("naps_until") | {"data": {"dev": str(folder / "quick")}}]
    config = toy_config(folder / "f", tasks=tasks, budget={"evaluations": evaluations})
    (folder / "toy.json").write_text(config.model_dump_json())
    return started("run", str(folder / "toy.json"), "--run-dir", str(folder / "run"))


def started(*arguments):
    return subprocess.Popen(
        [*CLI, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_a_browser_follows_a_run_that_is_killed_and_goes_on(tmp_path):
    from playwright.sync_api import sync_playwright

    run_dir = tmp_path / "run"
    process = begin(tmp_path, 300)
    errors = []
    try:
        awaited(lambda: (run_dir / "lock").exists(), bool)
        with watching(run_dir) as (address, _), sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            view = browser.new_page()
            view.set_default_timeout(PATIENCE_S * 1000)
            view.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
            view.on("pageerror", lambda error: errors.append(str(error)))
            view.goto(address)

            def count():
                found = re.search(r"(\d+) of 300 evaluations", view.inner_text("#about"))
                return int(found[1]) if found else 0

            def shows(state):
                view.wait_for_function(
                    "s => document.getElementById('about').innerText.includes(s)", arg=state
                )

            shows("running")
            first = awaited(count, lambda n: n > 0)
            before = awaited(count, lambda n: n > first)  # numbers move
            assert process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
            shows("stopped")
            assert before <= count() < 300
            process = started("resume", str(run_dir))
            shows("running")
            (tmp_path / "quick").touch()
            shows("finished")
            assert count() == 300
            assert "over" in awaited(lambda: view.inner_text("#live"), lambda t: "over" in t)
            assert view.inner_text("h1") == "run"
            browser.close()
    finally:
        process.kill()
        process.wait()
    assert errors == []


@pytest.mark.slow
def test_piped_each_generation_is_a_line_until_the_run_ends(tmp_path):
    process = begin(tmp_path, 40)
    try:
        awaited(lambda: (tmp_path / "run" / "lock").exists(), bool)
        command = [*CLI, "watch", "--terminal", str(tmp_path / "run")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
        assert process.wait(timeout=PATIENCE_S) == 0
    finally:
        process.kill()
    assert (done.returncode, done.stderr) == (0, "")
    numbers = [
        int(n) for n in re.findall(r"^generation +(\d+)  best 0\.\d+  mean", done.stdout, re.M)
    ]
    committed = len(list((tmp_path / "run" / "lineage" / "commits").glob("0*.json")))
    assert numbers == list(range(committed))
    assert "evaluations 40/40" in done.stdout
    assert done.stdout.splitlines()[-1] == f"{tmp_path / 'run'}: finished"


def test_a_terminal_is_drawn_until_the_run_ends(stopped):
    """Under a real terminal; a stopped run has ended, and how it goes on is said."""
    mine, theirs = pty.openpty()
    process = subprocess.Popen(
        [*CLI, "watch", "--terminal", str(stopped)],
        stdout=theirs,
        stderr=theirs,
        stdin=theirs,
        env=unbuffered(COLUMNS="120", LINES="50", TERM="xterm"),
    )
    os.close(theirs)
    drawn = b""
    while True:
        try:
            drawn += os.read(mine, 65536)
        except OSError:  # how a terminal ends
            break
    os.close(mine)
    assert process.wait(timeout=PATIENCE_S) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn.decode())
    assert "stopped  recipe_search" in text
    assert "31 of 60 evaluations, 5 generations" in text
    assert f"resume it with: evo resume {stopped}" in text
    assert "█" in text


def test_the_picture_names_the_best_the_operators_and_what_happened(finished):
    now = snapshot(Lineage(finished))
    lineage = Lineage(finished)
    latest = lineage.population.to_pandas()
    latest = latest[latest.generation == latest.generation.max()].sort_values("rank")
    assert [m.id for m in now.top] == latest.individual.tolist()[: len(now.top)]
    assert now.best.id == lineage.best()
    assert [p.evaluations for p in now.points][-1] == now.status.evaluations == 60
    curve = lineage.best_so_far().to_pandas()
    assert [p.best for p in now.points] == curve.groupby("generation").best.last().tolist()
    out = StringIO()
    Console(file=out, width=120).print(picture(now, finished))
    for wanted in ("finished", now.best.id[:12], "crossover", "local", "finish  evaluations;"):
        assert wanted in out.getvalue()


def test_pending_evaluations_are_those_in_the_journal(tmp_path):
    seen = []

    def look(progress):
        if progress.evaluations == 13:  # in the second generation of seven after the founders'
            seen.append(snapshot(Lineage(tmp_path / "run")))

    run(toy_config(tmp_path / "f"), tmp_path / "run", observe=look)
    assert seen[0].status.state == "running"
    assert (seen[0].status.pending, seen[0].status.evaluations) == (3, 13)


def test_what_is_drawn_can_not_steer_the_terminal(finished):
    from dataclasses import replace

    now = snapshot(Lineage(finished))
    evil = [(now.events[0][0], "failed", "\x1b]0;owned\x07 [red]x[/red]")]
    out = StringIO()
    Console(file=out, width=120).print(
        picture(
            replace(now, events=tuple(evil), status=replace(now.status, problem="\x1b[2J")),
            finished,
        )
    )
    assert "\x1b" not in out.getvalue()
    assert "[red]x[/red]" in out.getvalue()


def test_a_curve_fits_its_line():
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([float("nan"), 1.0, 2.0]) == " ▁█"
    assert sparkline([]) == ""
    long = sparkline([float(i) for i in range(1000)])
    assert len(long) == 60
    assert long[0] == "▁"
    assert long[-1] == "█"


def test_once_goes_with_the_terminal(finished):
    done = evo_command("watch", finished, "--once")
    assert done.returncode == 2
    assert "--once goes with --terminal" in done.stderr
    assert Path(finished).is_dir()
