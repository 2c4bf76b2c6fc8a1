"""`evo` in processes that need no time to import: one server has imported torch, each command is a fork of it.

Importing takes a small command's time many times over. A fork has streams, a folder, variables and an exit
code of its own, like the installed command. Where the start itself is tested, or a command is killed, tests
start the installed command.
"""

import atexit
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from pathlib import Path

TIMEOUT_S = 120.0
SHIM = """#!{python} -IS
import sys
sys.path.insert(0, {support!r})
from warm_evo import request
sys.exit(request({address!r}, sys.argv[1:], [0, 1, 2]))
"""


def evo(
    *arguments: object, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, ``variables`` added to the environment."""
    words = [str(argument) for argument in arguments]
    with (
        open(os.devnull) as stdin,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        streams = [stdin.fileno(), out.fileno(), err.fileno()]
        code = request(address(), words, streams, cwd, {**os.environ, **variables})
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(
            ["evo", *words], code, out.read().decode(), err.read().decode()
        )


@cache
def address() -> str:
    """The socket of this process's server, which is started once and ends with this process."""
    folder = tempfile.mkdtemp()  # sockets have short paths, so no folder of pytest's
    command = [sys.executable, __file__, f"{folder}/socket"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def end() -> None:
        server.kill()
        server.communicate()
        shutil.rmtree(folder)

    atexit.register(end)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    return f"{folder}/socket"


def write_shim(folder: Path) -> None:
    """Write an ``evo`` to ``folder`` that asks the server, for the PATH of a shell."""
    folder.mkdir(parents=True, exist_ok=True)
    shim = folder / "evo"
    support = str(Path(__file__).parent)
    shim.write_text(SHIM.format(python=sys.executable, support=support, address=address()))
    shim.chmod(0o755)


def request(
    address: str,
    arguments: list[str],
    streams: list[int],
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
) -> int:
    """Have the server at ``address`` run a command; return its exit code."""
    words = [str(cwd or os.getcwd()), *arguments]
    variables = [f"{k}={v}" for k, v in (environment or os.environ).items()]
    data = "\0".join([str(len(words)), *words, *variables]).encode()
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(TIMEOUT_S)
        server.connect(address)
        socket.send_fds(server, [struct.pack("<q", len(data))], streams)
        server.sendall(data)
        return server.recv(1)[0]


def serve(address: str) -> None:
    """Run one command after the other until killed."""
    import transformers  # noqa: F401  what commands import

    import evo.cli.run
    import evo.evolution
    import evo.reproduce.export
    import evo.reproduce.verify  # noqa: F401

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("ready", flush=True)
    while True:
        client, _ = listener.accept()
        size, streams, _, _ = socket.recv_fds(client, 8, 3)
        data = b""
        while len(data) < struct.unpack("<q", size)[0]:
            data += client.recv(1 << 16)
        child = os.fork()
        if child == 0:
            _become(data.decode().split("\0"), streams)
        for stream in streams:
            os.close(stream)
        _, status = os.waitpid(child, 0)
        client.sendall(bytes([os.waitstatus_to_exitcode(status) % 256]))
        client.close()


def _become(request: list[str], streams: list[int]) -> None:
    """In the fork: run the command. Never returns."""
    count = int(request[0])
    folder, *arguments = request[1 : count + 1]
    code = 1
    try:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(variable.split("=", 1) for variable in request[count + 1 :])
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
        # New objects: the server's remember what its own streams can do.
        encoding = os.environ.get("PYTHONIOENCODING")
        sys.stdout = open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding=encoding, closefd=False)  # noqa: SIM115
        sys.argv = ["evo", *arguments]
        from evo.cli import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
