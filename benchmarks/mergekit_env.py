"""mergekit in an environment of its own, made on the first call, with the torch that this project pins."""

import json
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
CACHE = ROOT / "build"
VERSION = "0.1.5"


def mergekit(extra: str = "") -> Path:
    """The environment's folder of programs; ``extra`` is one of mergekit's, such as ``evolve``.

    Exits with pip's reason where it can't be made. Pinned with ours, torch brings no CUDA.
    """
    folder = CACHE / "-".join(["mergekit", *([extra] if extra else []), "venv"])
    done_marker = folder / "complete"
    if not done_marker.exists():
        wanted = f"mergekit[{extra}]=={VERSION}" if extra else f"mergekit=={VERSION}"
        names = ("torch", "numpy", "ray", "pandas", "pyarrow")
        pins = (ROOT / "constraints.txt").read_text().splitlines()
        constraints = CACHE / "mergekit-constraints.txt"
        CACHE.mkdir(exist_ok=True)
        constraints.write_text("\n".join(p for p in pins if p.split("==")[0] in names))
        venv.create(folder, with_pip=True, clear=True)  # of a half-made one, too
        command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "-c", constraints]
        done = subprocess.run([*command, wanted], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{wanted} can't be installed here:\n{done.stderr[-2000:]}")
        done_marker.touch()
    return folder / "bin"


def versions(programs: Path, *names: str) -> dict[str, str]:
    """The versions of these packages in an environment."""
    command = [programs / "python", "-m", "pip", "list", "--format", "json"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {p["name"]: p["version"] for p in json.loads(listed.stdout)}
    return {name: found[name] for name in names}
