"""The report page as a person meets it: in a real browser, wide and narrow, light and dark, by mouse and by keyboard."""

import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import report_facts
from lineages import fits
from toys import toy_config
from warm_evo import evo

from evo.errors import EvoError
from evo.evolution import Evolution
from evo.report.contract import Facts
from evo.report.page import page as html_page
from evo.report.write import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SECTIONS = (
    "headline",
    "fitness",
    "scores",
    "family",
    "shares",
    "path",
    "changed",
    "diversity",
    "operators",
    "cost",
    "events",
)
CHARTS = ("headline", "fitness", "scores", "family", "shares", "path", "diversity", "operators")
PATIENCE_MS = 20_000


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visits:
    """Opens pages in one context; what they complained of and asked for is kept."""

    def __init__(self, browser, folder):
        self.browser, self.folder = browser, folder
        self.context = browser.new_context(reduced_motion="reduce")
        self.said, self.asked = [], []
        self.context.on("page", self._listen)

    def _listen(self, page):
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("request", lambda request: self.asked.append(request.url))

    def __call__(self, facts, width=1280, scheme="light", url=None, prepare=None):
        page = self.context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        if prepare:
            prepare(page)
        if url is None:
            file = self.folder / "report.html"
            file.write_text(html_page(facts), encoding="utf-8")
            url = file.as_uri()
        self.context.set_offline(url.startswith("file:"))
        page.goto(url)
        page.wait_for_function("document.querySelector('#about').textContent !== ''")
        return page

    def check(self):
        """Nothing may have complained or been fetched."""
        assert self.said == []
        own = ("file:", "http://127.0.0.1", "data:")
        assert [url for url in self.asked if not url.startswith(own)] == []


@pytest.fixture(scope="module")
def visits(browser, tmp_path_factory):
    visits = Visits(browser, tmp_path_factory.mktemp("pages"))
    yield visits
    visits.context.close()


@pytest.fixture
def visit(visits):
    """Opens facts as a page without a network; in the end nothing may have complained or been fetched."""
    visits.said.clear()
    visits.asked.clear()
    yield visits
    for page in visits.context.pages:
        page.close()
    visits.check()


@pytest.fixture(scope="module")
def ordinary(browser, tmp_path_factory):
    """The page of an ordinary run, for all tests that leave it as usable as they found it."""
    visits = Visits(browser, tmp_path_factory.mktemp("ordinary"))
    yield visits(report_facts.ordinary())
    visits.context.close()
    visits.check()


# The charts follow a change of width or theme in the next frame.
DRAWN = """() => [...document.querySelectorAll(".chart")].every((chart) => chart.clientWidth === 0
    || chart.querySelector("canvas").clientWidth === chart.clientWidth
    && chart.clientWidth > 0.9 * chart.closest("section, .verdict > div").clientWidth - 60)"""


def chart(page, section):
    return page.locator(f"#{section} .chart")


def tip(page, section):
    """The text of the tooltip that is shown in a section's chart, empty if none is."""
    return page.evaluate(
        """(id) => {
            const tip = document.querySelector(`#${id} .tip`);
            const shown = tip?.checkVisibility({ visibilityProperty: true, opacityProperty: true });
            return shown ? tip.innerText : "";
        }""",
        section,
    )


def announced(page):
    return page.locator("#announce").text_content()


@pytest.mark.parametrize("facts", ["ordinary", "large", "hostile", "sparse", "nothing"])
def test_every_run_is_shown_whole_at_every_width(facts, visit):
    made_up = getattr(report_facts, facts)()
    assert fits(made_up, Facts)
    page = visit(made_up, width=375)
    for width, scheme in ((375, "light"), (1280, "light"), (1280, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function("(s) => document.documentElement.dataset.theme === s", arg=scheme)
        page.wait_for_function(DRAWN)
        found = page.evaluate(
            """() => ({
                wide: document.scrollingElement.scrollWidth,
                sections: [...document.querySelectorAll("main > section")].map((s) => s.id),
                words: [...document.querySelectorAll("main > section")].map((s) => s.innerText.length),
                ids: [...document.querySelectorAll("[id]")].map((e) => e.id),
                out: [...document.querySelectorAll("main *, header *")].filter((e) => {
                    const scrolls = e.closest(".table, .chart-scroll, .unseen, nav");
                    return !scrolls && e.getBoundingClientRect().right > innerWidth + 1;
                }).length,
            })"""
        )
        assert found["wide"] <= width
        assert found["out"] == 0
        assert tuple(found["sections"]) == SECTIONS
        assert min(found["words"]) > 20  # a section with nothing to show says why
        assert len(set(found["ids"])) == len(found["ids"])
    assert all(url.startswith(("file:", "data:")) for url in visit.asked)


def test_the_first_thing_said_is_how_much_better_the_winner_is(ordinary):
    page = ordinary
    headline = page.locator("#headline").inner_text()
    assert headline.index("+0.130") < headline.index("better than the best founder, founder 0")
    assert "The 95 % interval of the difference, +0.083 to +0.177, lies above zero" in headline
    assert r"evo export 'runs/it'\''s ordinary' best --out DIR" in headline
    assert "0.5·founder 0 −\u00a00.25·founder 1" in headline
    assert page.locator("#headline").bounding_box()["y"] < 200


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-0.02, 0.1, "can't tell the two apart"),
        (0.0, 0.1, "can't tell the two apart"),
        (-0.2, -0.1, "the winner is worse"),
    ],
)
def test_the_headline_does_not_claim_more_than_the_interval(low, high, words, visit):
    facts = report_facts.ordinary()
    facts["run"]["state"] = "finished"
    facts["headline"] |= {"low": low, "high": high, "difference": (low + high) / 2}
    assert words in visit(facts).locator("#headline .sentence").inner_text()


def test_where_no_child_is_better_no_number_says_so(visit):
    facts = report_facts.ordinary()
    head = facts["headline"]
    head |= {
        "winner": {**head["founder"], "description": ""},
        "difference": 0.0,
        "low": 0.0,
        "high": 0.0,
    }
    facts["family"] = {"nodes": facts["family"]["nodes"][:1], "edges": [], "left_out": 0}
    page = visit(facts)
    text = page.locator("#headline").inner_text()
    assert "no gain" in text
    assert "is the best founder itself" in text
    assert "better" not in text
    assert "it has no ancestors" in page.locator("#family").inner_text()


@pytest.mark.parametrize(("absent", "present"), [("path", "shares"), ("shares", "path")])
def test_what_a_winner_can_not_have_is_not_a_section(absent, present, visit):
    facts = report_facts.ordinary()
    facts[absent] = None
    page = visit(facts)
    assert not page.locator(f"#{absent}").is_visible()
    assert not page.locator(f"nav a[href='#{absent}']").is_visible()
    assert page.locator(f"#{present} .chart").is_visible()


def test_each_metric_has_its_own_scale_and_says_when_lower_is_better(visit):
    facts = report_facts.ordinary()
    bits = facts["run"]["tasks"][1]
    bits |= {"metric": "bits_per_byte", "weight": -bits["weight"]}
    for row in facts["scores"]:
        for split in row["tasks"][bits["name"]].values():
            split["score"] = 40 + split["score"]
    option = visit(facts).evaluate(
        """() => {
            const { title, xAxis } = echarts.getInstanceByDom(document.querySelector("#scores .chart")).getOption();
            return [title.map((one) => one.text), xAxis.map((one) => [one.min, one.max])];
        }"""
    )
    titles, ranges = option
    assert titles[1:] == [facts["run"]["tasks"][0]["name"], f"{bits['name']}, lower is better"]
    assert ranges[1][1] <= 2
    assert ranges[2][0] >= 38


def test_answers_that_nobody_recorded_are_right_or_wrong(visit):
    facts = report_facts.ordinary()
    example = facts["changed"]["examples"][0]
    example |= {"was": None, "now": "8", "was_value": 0.0, "now_value": 1.0, "change": "fixed"}
    first = visit(facts).locator(".examples > li").first.inner_text()
    assert "wrong; what it said is not recorded" in first


def test_without_scripts_the_result_is_there_and_no_empty_sections(browser, tmp_path):
    facts = report_facts.ordinary()
    (tmp_path / "a b#c.html").write_text(html_page(facts), encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "a b#c.html").as_uri())
    assert "+0.130 on test (95 % interval +0.083 to +0.177)" in page.locator("main").inner_text()
    assert not page.locator("h2").first.is_visible()
    assert not page.locator("nav").is_visible()
    context.close()


def test_the_command_to_type_next_is_copied(ordinary):
    page = ordinary
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#headline").get_by_role("button").first.click()
    page.wait_for_selector("#headline button >> text=Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == r"evo export 'runs/it'\''s ordinary' best --out DIR"


def node_at(page, index):
    """Where in the window a node of the family tree is."""
    chart(page, "family").scroll_into_view_if_needed()
    return page.evaluate(
        """(index) => {
            const area = document.querySelector("#family .chart");
            const option = echarts.getInstanceByDom(area).getOption();
            const value = option.series[0].data[index].value;
            const [x, y] = echarts.getInstanceByDom(area).convertToPixel({ seriesIndex: 0 }, value);
            const box = area.getBoundingClientRect();
            return [box.left + x, box.top + y];
        }""",
        index,
    )


def test_hovering_over_an_individual_shows_operator_parents_and_scores(ordinary):
    facts = report_facts.ordinary()
    page = ordinary
    node = facts["family"]["nodes"][9]
    page.mouse.move(*node_at(page, 9), steps=3)
    page.wait_for_selector("#family .tip")
    shown = tip(page, "family")
    parents = [n["name"] for n in facts["family"]["nodes"] if n["id"] in node["parents"]]
    assert parents
    for words in (
        node["name"],
        node["operator"],
        *parents,
        f"{node['fitness']:.3f} ± 0.030",
        "add",
    ):
        assert words in shown


def test_the_keyboard_walks_the_family_and_hears_the_same(ordinary):
    facts = report_facts.ordinary()
    nodes = facts["family"]["nodes"]
    page = ordinary
    tree = chart(page, "family")
    tree.focus()
    page.keyboard.press("ArrowDown")  # first the winner
    assert nodes[-1]["name"] in announced(page)
    assert nodes[-1]["operator"] in tip(page, "family")
    page.keyboard.press("ArrowLeft")
    parent = announced(page)
    assert any(n["name"] in parent for n in nodes if n["id"] in nodes[-1]["parents"])
    page.keyboard.press("Home")
    heard = {announced(page)}
    for _ in nodes[1:]:
        page.keyboard.press("ArrowDown")
        heard.add(announced(page))
    assert len(heard) == len(nodes)
    page.keyboard.press("Escape")
    assert tip(page, "family") == ""


def opacities(page):
    return page.evaluate(
        """() => echarts.getInstanceByDom(document.querySelector("#family .chart"))
            .getOption().series[0].data.map((node) => node.itemStyle.opacity)"""
    )


def test_enter_pins_an_individual_and_lights_its_ancestors(ordinary):
    facts = report_facts.ordinary()
    nodes = facts["family"]["nodes"]
    page = ordinary
    chart(page, "family").focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    card = page.locator("#pinned")
    assert nodes[-1]["id"] in card.inner_text()
    by_id = {n["id"]: n for n in nodes}
    lit, wait = set(), [nodes[-1]["id"]]
    while wait:
        if (one := wait.pop()) not in lit:
            lit.add(one)
            wait += by_id[one]["parents"]
    assert [o == 1 for o in opacities(page)] == [n["id"] in lit for n in nodes]
    card.get_by_role("button").nth(1).click()  # a parent
    parent = card.locator("h3").inner_text()
    assert nodes[-1]["name"] not in parent
    assert page.evaluate("document.activeElement.closest('#pinned') !== null")
    page.mouse.click(*node_at(page, 0))
    assert "founder 0" in card.locator("h3").inner_text()
    chart(page, "family").focus()
    page.keyboard.press("Escape")
    assert card.count() == 0
    assert set(opacities(page)) == {1}


@pytest.mark.parametrize("width", [375, 1280])
def test_every_chart_can_be_walked_by_keyboard(width, ordinary):
    page = ordinary
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_function(DRAWN)
    for section in CHARTS:
        area = chart(page, section)
        assert len(area.get_attribute("aria-label")) > 30
        area.focus()
        page.keyboard.press("Home")
        first = announced(page)
        assert re.search(r"\w", tip(page, section)), section
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        assert announced(page) not in ("", first), section
        assert tip(page, section), section
        page.keyboard.press("Escape")
        assert tip(page, section) == "", section


def test_every_chart_has_its_numbers_as_a_table(ordinary):
    facts = report_facts.ordinary()
    page = ordinary
    for section in CHARTS:
        details = page.locator(f"#{section} details")
        if details.count():
            assert details.locator("table").count() == 0  # made when asked for
            details.locator("summary").click()
        page.locator(f"#{section} tbody tr").first.wait_for()
    rows = page.locator("#family details tbody tr")
    assert rows.count() == len(facts["family"]["nodes"])
    scores = page.locator("#scores tbody").inner_text()
    assert all(row["name"] in scores for row in facts["scores"])
    steps = page.locator("#path tbody tr")
    assert steps.count() == len(facts["path"]["steps"]) + 2
    assert page.locator("#shares tbody tr").count() == len(facts["shares"]["groups"])


def test_the_curve_can_be_read_along_evaluations_generations_and_time(ordinary):
    page = ordinary
    last = {}
    for name in ("evaluations", "generations", "time"):
        page.locator("#fitness label").get_by_text(name, exact=True).click()
        last[name] = page.evaluate(
            """() => echarts.getInstanceByDom(document.querySelector("#fitness .chart"))
                .getOption().series[0].data.at(-1)[0]"""
        )
    assert last == {"evaluations": 72, "generations": 11, "time": 30}


def test_changed_examples_are_filtered_by_text_kind_and_task(ordinary):
    page = ordinary
    section = page.locator("#changed")
    items = section.locator(".examples > li")
    assert items.count() == 12
    section.get_by_role("button", name="Show more").click()
    assert items.count() == 24
    assert page.evaluate("document.activeElement.tagName") == "LI"
    section.get_by_role("radio", name="worse").check()
    assert items.count() == 8
    section.get_by_label("Task").select_option("sort")
    assert items.count() == 4
    section.get_by_role("searchbox").fill("after 3?")
    assert items.count() == 1
    assert "What comes after 3?" in items.inner_text()
    assert "1 of 1 example shown" in section.inner_text()


def test_text_from_a_run_is_never_markup(visit):
    facts = report_facts.hostile()
    page = visit(facts)
    for section in CHARTS:
        chart(page, section).focus()
        for key in ("Home", "ArrowDown", "ArrowRight", "Enter"):
            page.keyboard.press(key)
    page.mouse.move(*node_at(page, 9), steps=3)
    for details in page.locator("details summary").all():
        details.click()
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 3
    assert "owned" not in page.title().replace(report_facts.HOSTILE, "")
    assert page.locator("#changed .text").first.text_content().startswith(report_facts.HOSTILE)
    assert json.loads(page.locator("#facts").text_content()) == facts


def test_the_policy_stops_scripts_and_requests_that_are_not_the_pages_own(visit):
    page = visit(report_facts.ordinary())
    page.evaluate(
        """() => {
            const box = document.createElement("div");
            box.innerHTML = '<img src="https://example.org/x.png" onerror="document.title = 1">';
            box.append(Object.assign(document.createElement("script"), { textContent: "document.title = 2" }));
            document.body.append(box);
        }"""
    )
    refused = page.evaluate("fetch('https://example.org').then(() => 'went out', () => 'refused')")
    assert refused == "refused"
    assert page.title() == "ordinary – evo report"
    assert visit.said
    assert all("Content Security Policy" in text for text in visit.said)
    complaints = list(visit.said)
    visit.said.clear()
    assert visit.asked.pop() == "https://example.org/x.png"  # asked for, and refused
    assert "'https://example.org/x.png' violates" in " ".join(complaints)


def luminance(colour):
    def linear(part):
        part /= 255
        return part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(int(colour[k : k + 2], 16)) for k in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_theme_follows_the_system_can_be_chosen_is_remembered_and_has_contrast(visit):
    page = visit(report_facts.ordinary(), scheme="dark")
    for theme in ("dark", "light"):
        assert page.evaluate("document.documentElement.dataset.theme") == theme
        names = ("bg", "surface", "sunken", "text", "muted", "accent", "good", "bad", "blue")
        colour = page.evaluate(
            """(names) => Object.fromEntries(names.map((name) => [name,
                getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()]))""",
            names,
        )
        for ink in ("text", "muted", "accent", "good", "bad"):
            for paper in ("bg", "surface", "sunken"):
                assert contrast(colour[ink], colour[paper]) >= 4.5, (theme, ink, paper)
        assert contrast(colour["blue"], colour["bg"]) >= 3
        page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.locator("#theme").click()
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    page.evaluate("localStorage.clear()")  # the tests share a browser's memory


def test_all_controls_are_reached_by_tab_in_order_with_a_visible_focus(visit):
    page = visit(report_facts.ordinary())
    seen = []
    for _ in range(120):
        page.keyboard.press("Tab")
        found = page.evaluate(
            """() => {
                const at = document.activeElement;
                const shown = at.type === "radio" ? at.closest("label") : at;
                return at === document.body ? null : {
                    section: at.closest("section")?.id ?? null, chart: at.className === "chart", text: at.textContent,
                    outlined: getComputedStyle(shown).outlineStyle !== "none", named: Boolean(
                        at.getAttribute("aria-label") || at.textContent.trim() || at.labels?.length),
                };
            }"""
        )
        if found is None:
            break
        seen.append(found)
    assert seen[0]["text"] == "Skip to the result"
    assert all(one["outlined"] and one["named"] for one in seen)
    order = list(dict.fromkeys(one["section"] for one in seen if one["section"]))
    assert order == [s for s in SECTIONS if s in order]
    assert [one["section"] for one in seen if one["chart"]] == list(CHARTS)


def test_printing_is_light_and_goes_back(visit):
    page = visit(report_facts.ordinary(), scheme="dark")
    page.evaluate(
        """() => addEventListener("beforeprint", () => {
            const pictures = [...document.querySelectorAll("img.printed")].map((img) => img.alt.length);
            window.printed = [document.documentElement.dataset.theme, pictures];
        })"""
    )
    assert page.pdf().startswith(b"%PDF")
    theme, pictures = page.evaluate("window.printed")
    assert theme == "light"
    assert len(pictures) == len(CHARTS)
    assert min(pictures) > 30
    assert page.locator("img").count() == 0
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


@pytest.fixture
def served():
    """A server of a live page, whose facts can be changed."""
    state = SimpleNamespace(
        facts=report_facts.ordinary(), tag='"1"', asked=[], ready=threading.Event()
    )
    state.ready.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.asked.append((self.path, self.headers["If-None-Match"]))
            if self.path == "/data.json":
                state.ready.wait(PATIENCE_MS / 1000)
            if self.path == "/data.json" and self.headers["If-None-Match"] == state.tag:
                self.send_response(304)
                return self.end_headers()
            body = json.dumps(state.facts) if self.path == "/data.json" else html_page(None, True)
            self.send_response(200)
            self.send_header("ETag", state.tag)
            kind = "application/json" if self.path == "/data.json" else "text/html; charset=utf-8"
            self.send_header("Content-Type", kind)
            self.end_headers()
            return self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.stop = lambda: (server.shutdown(), server.server_close())
    yield state
    state.stop()


def test_a_live_page_redraws_in_place_and_says_when_it_lost_its_run(served, visit):
    served.facts["run"]["state"] = "running"
    served.ready.clear()
    page = visit(None, url=served.url, prepare=lambda page: page.clock.install())
    assert "Waiting" in page.locator("header").inner_text()
    assert not page.locator("#headline").is_visible()  # no empty sections before there are facts
    served.ready.set()
    page.wait_for_selector("#live >> text=live")
    poll = lambda: page.clock.fast_forward(2500)  # noqa: E731
    chart(page, "family").focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    page.locator("#fitness summary").click()
    page.mouse.move(0, 0)
    chart(page, "family").focus()
    page.keyboard.press("End")
    before = page.evaluate("scrollY")
    pinned = page.locator("#pinned h3").inner_text()

    served.facts["fitness"]["best"][-1] = 0.987
    served.facts["headline"]["difference"] = 0.321
    served.facts["family"]["nodes"][0]["fitness"] = 0.123
    served.tag = '"2"'
    poll()
    page.wait_for_selector("#headline .figure >> text=+0.321")
    assert "0.987" in page.locator("#fitness .finding").inner_text()
    assert "0.987" in page.locator("#fitness details tbody").inner_text()  # still open
    assert page.locator("#pinned h3").inner_text() == pinned
    assert page.evaluate("document.activeElement.closest('#family') !== null")
    assert tip(page, "family")  # the point that the keyboard stood on
    assert abs(page.evaluate("scrollY") - before) < 2
    page.wait_for_function("/updated \\d+ s ago/.test(document.querySelector('#live').textContent)")
    with page.expect_response("**/data.json") as answer:
        poll()
    assert answer.value.request.headers["if-none-match"] == '"2"'
    assert served.asked[-1] == ("/data.json", '"2"')

    served.stop()
    poll()
    page.wait_for_selector("#live.lost >> text=lost connection")
    assert page.locator("#headline .figure").inner_text().startswith("+0.321")
    assert all("ERR_" in text for text in visit.said)
    visit.said.clear()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    config = toy_config(folder / "f", budget={"generations": 2})
    with Evolution(config, folder / "run") as evolution:
        list(evolution)
        evolution.finish()
    return folder / "run"


def test_the_command_writes_the_report_and_says_the_result(finished, tmp_path, visit):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    done = evo("report", run, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"run/report\.html \(1\.\d MiB\): [+-]0\.\d+ on test \(95 % interval", done.stdout
    )
    page = visit(None, url=(run / "report.html").as_uri())
    figure = page.locator("#headline .figure").inner_text().splitlines()[0]
    assert figure.replace("−", "-") in done.stdout

    written = (run / "report.html").read_bytes()
    (run / "report.html.tmp").mkdir()  # in the way of the writing
    done = evo("report", run, cwd=tmp_path)
    assert done.returncode == 2
    assert (run / "report.html").read_bytes() == written


def test_a_report_needs_a_run_and_a_file(finished, tmp_path):
    done = evo("report", tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert "no run here" in done.stderr
    done = evo("report", finished, "--out", tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert "name a file" in done.stderr


def test_a_report_replaces_no_device_and_says_what_it_could_not_read(finished, tmp_path):
    run, pipe = tmp_path / "run", tmp_path / "pipe"
    shutil.copytree(finished, run)
    os.mkfifo(pipe)
    with pytest.raises(EvoError, match="no file that could be replaced"):
        write_report(run, pipe)
    assert pipe.is_fifo()
    (run / "config.json").unlink()
    _, told = write_report(run)
    assert re.search(r" on test .*\nNot all could be read: .*config.json: No such file", told)
