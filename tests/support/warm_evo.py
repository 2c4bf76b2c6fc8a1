"""A warm `evo`: one process that has imported torch, and a fork of it for every command of the docs.

Most of a small command's time is importing; a page has ten of them. The shim that stands on the PATH hands its
arguments, folder, environment and standard streams to the server, whose fork runs the command's own ``main``.
"""

import os
import socket
import struct
import sys
import traceback
from pathlib import Path

SHIM = """#!{python} -IS
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
words = [os.getcwd(), *sys.argv[1:]]
variables = [f"{{k}}={{v}}" for k, v in os.environ.items()]
request = "\\0".join([str(len(words)), *words, *variables]).encode()
socket.send_fds(server, [len(request).to_bytes(8, "little")], [0, 1, 2])
server.sendall(request)
sys.exit(server.recv(1)[0])
"""


def write_shim(folder: Path, address: Path) -> None:
    """An ``evo`` in ``folder`` that asks the server at ``address``."""
    folder.mkdir(parents=True, exist_ok=True)
    shim = folder / "evo"
    shim.write_text(SHIM.format(python=sys.executable, address=str(address)))
    shim.chmod(0o755)


def serve(address: str) -> None:
    """Answer one command after the other until killed."""
    import transformers  # noqa: F401  what commands would wait for

    import evo.cli.run
    import evo.export.checkpoint  # noqa: F401

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
            _command(data.decode().split("\0"), streams)
        for stream in streams:
            os.close(stream)
        _, status = os.waitpid(child, 0)
        client.sendall(bytes([os.waitstatus_to_exitcode(status) % 256]))
        client.close()


def _command(request: list[str], streams: list[int]) -> None:
    """In the fork: become that command. Never returns."""
    count = int(request[0])
    folder, *arguments = request[1 : count + 1]
    code = 1
    try:
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
        # New ones: those of the server remember what its own streams could do.
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(variable.split("=", 1) for variable in request[count + 1 :])
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
