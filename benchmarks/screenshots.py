"""Pictures of a run's report for the docs: wide and light, wide and dark, on a phone.

python benchmarks/screenshots.py demo/run [--out docs/images]

Needs playwright and a chromium (apt-get install chromium).
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from evo.report.write import write_report

MOST_BYTES = 250_000


def picture(
    browser: Browser,
    url: str,
    out: Path,
    *,
    width: int,
    height: int,
    theme: str,
    section: str | None,
) -> None:
    """What a reader sees from ``section`` (or the top) on; the family tree is pinned at the winner."""
    page = browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme=theme,  # type: ignore[arg-type]
        reduced_motion="reduce",
    )
    page.goto(url)
    page.locator("#family .chart").focus()
    for key in ("End", "Enter"):
        page.keyboard.press(key)
    page.evaluate("document.activeElement.blur()")
    page.locator(f"#{section}" if section else "body").evaluate("at => at.scrollIntoView()")
    page.screenshot(path=out)
    page.close()
    size = out.stat().st_size
    print(f"{out}: {size / 1000:.0f} kB")
    if size > MOST_BYTES:
        raise SystemExit(f"{out}: larger than {MOST_BYTES / 1000:.0f} kB")


def main() -> None:
    """Parse, write a report, take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("no chromium here: apt-get install chromium")
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        report, line = write_report(options.run_dir, Path(folder) / "report.html")
        print(line)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, width, height, theme, section in (
            ("report-wide", 1280, 1200, "light", None),
            ("report-dark", 1280, 1200, "dark", "family"),
            ("report-phone", 375, 1150, "light", None),
        ):
            picture(
                browser,
                report.as_uri(),
                options.out / f"{name}.png",
                width=width,
                height=height,
                theme=theme,
                section=section,
            )
        browser.close()


if __name__ == "__main__":
    main()
