"""Runs what the documentation shows: every fenced block of a page, from top to bottom, in one folder.

| block                 | what is done with it                                                          |
|-----------------------|-------------------------------------------------------------------------------|
| ``bash``              | run by bash; it must succeed, or fail where the output shown is an error      |
| ``python``            | run in the page's one namespace; the last expression is printed, as in a notebook |
| any with a ``title``  | written to the file of that name                                              |
| ``yaml``, titled      | if it is a run's config it must load                                          |
| ``yaml``, untitled    | must load as a part of ``mine.yaml``, in place of those keys                  |
| ``diff``              | applied to a copy of the sources                                              |
| ``text``              | what the block before it printed: all its lines, in order; numbers, ids and widths may differ |

A comment before a block may say ``run by tests/test_x.py::test_y`` (or another file of the project), where
that runs the same thing; ``first line only`` for a text; or ``not run: reason``.
"""

import ast
import contextlib
import io
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from cluster_processes import environment
from patience import PATIENCE_S
from places import ROOT, SUPPORT

from evo.config.loader import load_config

FENCE = re.compile(r"^( *)```([\w-]*) *([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!-- *((?:(?!-->).)*?) *-->\s*\Z", re.DOTALL)
TITLE = re.compile(r'title="([^"]+)"')
LANGUAGES = {"bash", "python", "yaml", "json", "diff", "text"}
# Runs in the pages' world are small and in one process; where Ray is the point, a page says who runs it.
SMALL = " ".join(
    f"--set {setting}"
    for setting in (
        *("pool.kind=local", "engine.threads=1", "engine.dtype=float32"),
        *("budget.evaluations=24", "baselines={}"),
    )
)
PACKAGES = ("evo", "operators", "fitness", "cluster", "tests")


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    title: str
    text: str
    note: str  # the comment just before it

    def __str__(self) -> str:
        return f"{self.page}, line {self.line}"


def blocks(page: str, markdown: str) -> list[Block]:
    """Every fenced block of a page, in order."""
    found = []
    for fence in FENCE.finditer(markdown):
        indent, language, words, text = fence.groups()
        note = COMMENT.search(markdown[: fence.start()])
        title = TITLE.search(words)
        lines = [line.removeprefix(indent) for line in text.splitlines(keepends=True)]
        found.append(
            Block(
                page,
                markdown.count("\n", 0, fence.start()) + 1,
                language,
                title.group(1) if title else "",
                "".join(lines),
                " ".join(note.group(1).split()) if note else "",
            )
        )
    return found


def check_runner(block: Block) -> None:
    """The file and test that a block names exist, and have the block's words."""
    file, _, test = block.note.removeprefix("run by ").partition("::")
    source = (ROOT / file).read_text()
    if not test:
        missing = [line for line in block.text.splitlines() if line not in source.splitlines()]
        assert not missing, f"{block}: {file} does not run {missing}"
        return
    assert re.search(rf"^def {re.escape(test)}\(", source, re.MULTILINE), f"{block}: no {test}"
    if block.language == "text":
        return  # the output of another founder's luck, in a form that the test looks at
    helpers = SUPPORT.glob("*_processes.py")
    there = source + "".join(helper.read_text() for helper in helpers)
    for word in essential_words(block.text):
        assert word in there, f"{block}: {file} never says {word!r}"


def essential_words(commands: str) -> list[str]:
    """The subcommands and options of what a block runs."""
    words = []
    for line in commands.replace("\\\n", " ").splitlines():
        parts = [w for w in shlex.split(line, comments=True) if not re.match(r"\w+=", w)]
        words += [w.partition("=")[0] for w in parts[1:] if w.startswith("--")]
        words += [w for w in parts[1:2] if w.isalpha()]
    return words


class Page:
    """A page's folder and namespace, and what the last block printed."""

    def __init__(self, folder: Path, found: list[Block], evo: Path | None = None) -> None:
        self.folder = folder
        self.blocks = found
        self.evo = evo  # a folder with another `evo` for the PATH
        self.names: dict[str, Any] = {"__name__": "__docs__"}
        self.printed = ""
        self.patched = any(block.language == "diff" for block in found)
        self.following = dict(pairwise(found))
        if self.patched:
            self._copy_sources()

    def run_all(self) -> None:
        for block in self.blocks:
            self.run(block)

    def run(self, block: Block) -> None:
        assert block.language in LANGUAGES, f"{block}: a block of {block.language or 'no language'}"
        if block.note.startswith("run by "):
            check_runner(block)
        elif block.note.startswith("not run: "):
            pass  # counted by a test
        elif block.language == "text":
            self._compare(block)
        elif block.language == "diff":
            self._apply(block)
        elif block.title:
            self._write(block)
        elif block.language == "bash":
            self._shell(block)
        elif block.language == "python":
            self._python(block)
        elif block.language == "yaml":
            self._part_of_a_config(block)
        else:
            raise AssertionError(f"{block}: give it a title, the file that it is")

    def _write(self, block: Block) -> None:
        path = self.folder / block.title
        assert path.resolve().is_relative_to(self.folder.resolve()), f"{block}: {path}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
        self.printed = ""
        if block.language == "json":
            for line in [block.text] if block.title.endswith(".json") else block.text.splitlines():
                json.loads(line)
        if block.language == "yaml" and "founders" in yaml.safe_load(block.text):
            load_config(path)

    def _part_of_a_config(self, block: Block) -> None:
        whole = yaml.safe_load((self.folder / "mine.yaml").read_text())
        path = self.folder / "part.yaml"
        path.write_text(yaml.safe_dump(whole | yaml.safe_load(block.text)))
        load_config(path)
        path.unlink()

    def _shell(self, block: Block) -> None:
        script = re.sub(
            r"^( *evo run (?!.*--address)[^#\n]*?)( *#.*)?$", rf"\1 {SMALL}", block.text, flags=re.M
        )
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=environment(HOME=str(self.folder), COLUMNS="110", **self._path()),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        self.printed = done.stdout
        following = self.following.get(block)
        fails = following is not None and re.search(r"^Error", following.text, re.MULTILINE)
        wanted = 2 if following and following.language == "text" and fails else 0
        assert done.returncode == wanted, f"{block}: exit code {done.returncode}\n{done.stdout}"

    def _path(self) -> dict[str, str]:
        if self.patched:
            return {"PYTHONPATH": f"{self.folder}:{self.folder / 'tests' / 'support'}"}
        return {"PATH": f"{self.evo}:{environment()['PATH']}"} if self.evo else {}

    def _python(self, block: Block) -> None:
        tree = ast.parse("\n" * block.line + block.text, filename=block.page)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(tree, str(block), "exec"), self.names)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), str(block), "eval"), self.names)
                if value is not None:
                    print(value)
        self.printed = out.getvalue()

    def _compare(self, block: Block) -> None:
        wanted = [line for line in block.text.splitlines() if line.strip() not in ("", "...")]
        if block.note == "first line only":
            wanted = wanted[:1]
        shown = self.printed.replace(f"{self.folder}/", "")
        printed = [plain(line) for line in shown.splitlines()]
        rest = iter(printed)
        for line in wanted:
            assert plain(line) in rest, f"{block}: not printed: {line}\n\nPrinted:\n{self.printed}"

    def _apply(self, block: Block) -> None:
        subprocess.run(
            ["patch", "-p1", "--fuzz=0"],
            cwd=self.folder,
            input=block.text,
            text=True,
            check=True,
            timeout=PATIENCE_S,
        )

    def _copy_sources(self) -> None:
        junk = shutil.ignore_patterns("__pycache__", "golden", "runs")
        for package in PACKAGES:
            shutil.copytree(ROOT / package, self.folder / package, ignore=junk)
        shutil.copy(ROOT / "pyproject.toml", self.folder)


def plain(line: str) -> str:
    """A line without what differs from run to run: numbers, ids, widths."""
    line = re.sub(r"\b[0-9a-f]{12,}\b", "ID", line)
    line = re.sub(r"[-+]?\b\d+(\.\d+)?(e[-+]?\d+)?\b", "N", line)
    line = re.sub(r"([─━═┏┓┳┡┩╇└┘┴┴])\1*", "", line)
    return " ".join(line.split())
