"""The documentation is true: every block of every page runs, every link leads somewhere, the site builds."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docs_runner import Block, Page, blocks
from docs_world import build_world
from places import ROOT
from playwright.sync_api import sync_playwright
from warm_evo import write_shim

import evo
import evo.cli.demo
from evo.algorithms import ALGORITHMS
from evo.cli.run import run_config
from evo.lineage import SCHEMAS
from fitness.metrics import METRICS
from operators.merge import MERGES

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
SLOW = {"writing-an-operator.md"}  # it runs the conformance tests of a merge method
NOT_RUN = 2  # blocks that nothing runs; each says why


def blocks_of(path: Path) -> list[Block]:
    return blocks(path.name, path.read_text())


def page_cases() -> list[object]:
    pages = [p for p in PAGES if blocks_of(p)]
    slow = pytest.mark.slow
    return [pytest.param(p, id=p.name, marks=slow if p.name in SLOW else ()) for p in pages]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has who did what the pages before said: models, tasks, a config, the demo's run."""
    folder = build_world(tmp_path_factory.mktemp("world"))
    for block in blocks_of(ROOT / "docs" / "your-own-models.md"):
        if block.title == "mine.yaml":
            (folder / "mine.yaml").write_text(block.text)
    small = ["pool.kind=local", "budget.evaluations=160", "baselines={}"]
    run_config(folder / "examples" / "demo.yaml", folder / "demo" / "run", small)
    return folder


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the PATH with an `evo` that need not import torch."""
    folder = tmp_path_factory.mktemp("bin")
    write_shim(folder)
    return folder


@pytest.mark.parametrize("path", page_cases())
def test_every_block_runs(path, world, warm, tmp_path, monkeypatch):
    folder = tmp_path / "page"
    shutil.copytree(world, folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    known = set(sys.modules)
    page = Page(folder, blocks_of(path), warm)
    try:
        page.run_all()
    finally:
        for name in set(sys.modules) - known:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]


def test_hardly_a_block_is_not_run():
    notes = [(str(b), b.note) for p in PAGES for b in blocks_of(p) if b.note.startswith("not run")]
    assert len(notes) == NOT_RUN, notes
    assert all(len(note) > len("not run: because") for _, note in notes)


@pytest.mark.parametrize(
    ("markdown", "why"),
    [
        ("```\nevo --help\n```\n", "no language"),
        ("```fish\nevo --help\n```\n", "a block of fish"),
        ("```bash\nevo --help\n```\n```text\nno such line\n```\n", "not printed"),
        ("```bash\nevo status nowhere\n```\n", "exit code 2"),
        ("```json\n{}\n```\n", "give it a title"),
        (
            "<!-- run by tests/project/test_docs.py::test_nothing -->\n```bash\nevo demo\n```\n",
            "no test_no",
        ),
        (
            "<!-- run by tests/project/test_docs.py::test_hardly_a_block_is_not_run -->\n"
            "```bash\nevo run --never-" + "heard-of\n```\n",
            "never says",
        ),
        ("<!-- run by .ci/run -->\n```bash\nmake coffee\n```\n", "does not run"),
    ],
)
def test_a_page_that_is_not_true_fails(markdown, why, tmp_path):
    page = Page(tmp_path, blocks("x.md", markdown))
    with pytest.raises(AssertionError, match=why):
        page.run_all()


def test_the_demo_leaves_what_the_quickstart_says(world, tmp_path, monkeypatch, capsys):
    """What `make demo` runs, on the world's zoo, in this process and with few evaluations."""
    make = subprocess.run(
        ["make", "-n", "--no-print-directory", "demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert make.stdout.splitlines()[-1] == ".venv/bin/evo demo --dir demo"
    small = tmp_path / "demo.yaml"
    text = (ROOT / "examples" / "demo.yaml").read_text()
    for old, new in (("evaluations: 300", "evaluations: 20"), ("kind: ray", "kind: local")):
        assert old in text
        text = text.replace(old, new)
    small.write_text(text)
    shutil.copytree(world / "demo" / "zoo", tmp_path / "demo" / "zoo")
    monkeypatch.setattr(evo.cli.demo, "build_zoo", lambda folder: None)
    monkeypatch.setattr(evo.cli.demo, "demo_config", lambda: small)
    evo.cli.demo.run_demo(tmp_path / "demo")
    page = (ROOT / "docs" / "quickstart.md").read_text()
    left = {p.name for p in (tmp_path / "demo").iterdir()}
    assert left == set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    printed = capsys.readouterr().out.rpartition("The demo in one table")[2]
    for table in (page, (ROOT / "README.md").read_text()):
        rows = re.findall(r"^\| \**([a-zA-Z+_,' 1]+?)\**(?: \(.*\))? \| \w+ \| [\d–]", table, re.M)
        assert len(rows) == 10
        assert all(f"│ {name} " in printed for name in rows)


def test_the_measured_table_is_the_benchmarks():
    results = json.loads((ROOT / "benchmarks" / "results" / "quality.json").read_text())["table"]
    page = (ROOT / "docs" / "choosing-an-algorithm.md").read_text()
    for row in results:
        spread = f" ± {row['test_std']:.3f}" if "test_std" in row else ""
        cell = f"{row['test_mean']:.3f}{spread}"
        (line,) = re.findall(rf"^\| {re.escape(row['method'])} \| (.*) \|$", page, re.MULTILINE)
        assert line.split(" | ")[["alien", "trio"].index(row["task"])] == cell, row["method"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        check=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        timeout=200,
    )
    return folder


@pytest.mark.slow
def test_the_site_asks_nobody_on_the_net(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|link|img|iframe)[^>]*?(?:src|href)="([^"]+)"', page.read_text()
        )
        assert not [url for url in loaded if url.startswith(("http:", "https:", "//"))], page
    assert "lineage" in (site / "search" / "search_index.json").read_text()


@pytest.mark.slow
def test_tables_are_made_from_the_code(site):
    schema, tables = ((site / name).read_text() for name in ("schema.html", "tables.html"))
    for table in SCHEMAS.values():
        assert all(f"<code>{field.name}</code>" in schema for field in table)
        assert all(
            html.escape(field.metadata[b"doc"].decode(), quote=False) in schema for field in table
        )
    for name in (*MERGES, *ALGORITHMS, *(m for m in METRICS if m not in ("call", "function"))):
        assert f"<code>{name}</code>" in tables
    assert "<!-- table" not in schema + tables


@pytest.mark.slow
def test_the_reference_documents_what_the_package_offers(site):
    reference = (site / "api.html").read_text()
    for name in set(evo.__all__) - {"lineage"}:
        assert f'id="{getattr(evo, name).__module__}.{name}"' in reference, name
    assert not re.findall(r":(?:attr|class|func|meth|mod):", reference)


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
def test_search_works_on_pages_opened_from_the_disk(site):
    asked: list[str] = []
    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto((site / "index.html").as_uri())
        page.locator("input[name=query]").click()
        page.locator("input[name=query]").press_sequentially("bootstrap")
        page.locator(".md-search-result__item", has_text="paired bootstrap").first.wait_for()
        browser.close()
    assert not [url for url in asked if url.startswith("http")]
    assert not said
