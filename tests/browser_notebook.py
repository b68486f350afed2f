"""One notebook in a JupyterLab window, used as a person uses it (menu, mouse, keyboard) and read from the screen."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
from browser_lab import ROOT, Lab, chromium
from playwright.sync_api import ConsoleMessage, Locator, Page, Request, Response, sync_playwright

SCREENSHOTS = ROOT / "build" / "screenshots"
PATIENCE_MS = 900_000  # a guard: a kernel starts in seconds, and in a minute on a machine that does other things beside
WINDOW = {"width": 1280, "height": 1000}
NO_CALLS_HOME = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
CELLS = ".jp-Notebook .jp-Cell"
PROMPT = ".jp-InputArea-prompt"  # "[ ]:" not run, "[*]:" waiting or running, "[7]:" run
RUN = """([cells, prompt, index, before]) =>
    ![before, '[*]:'].includes(document.querySelectorAll(cells)[index].querySelector(prompt).textContent)"""
IDLE = """([cells, prompt]) =>
    [...document.querySelectorAll(`${cells} ${prompt}`)].every(each => each.textContent !== '[*]:')"""
SCROLL = """panel => {
    const before = panel.scrollTop;
    panel.scrollBy(0, 0.9 * panel.clientHeight);
    return panel.scrollTop > before;
}"""


class Notebook:
    """A notebook on the screen. A cell of code is named by words that stand in it.

    faults: what went wrong in the page so far: errors on the console, failed requests, requests that left the machine.
    """

    def __init__(self, page: Page, path: Path):
        self.page = page
        cells = nbformat.read(path, as_version=4).cells
        self.sources = [cell.source if cell.cell_type == "code" else "" for cell in cells]
        self.faults: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.faults.append(f"page error: {error}"))
        page.on("response", self._answered)
        page.on("request", self._asked)

    def cell(self, words: str) -> Locator:
        """The first cell of code with these words in the file that was opened, scrolled into view."""
        found = self.page.locator(CELLS).nth(self._index(words))
        found.scroll_into_view_if_needed()
        return found

    def output(self, words: str) -> Locator:
        return self.cell(words).locator(".jp-Cell-outputArea")

    def run(self, words: str) -> Locator:
        """Shift+Enter in one cell; comes back with its output when it has run."""
        before = self._prompt(words)
        self._select(words)
        self.page.keyboard.press("Shift+Enter")
        self._wait(words, before)
        return self.output(words)

    def run_all(self, until: str) -> Locator:
        """Run All Cells; comes back with the output of the cell `until` when it has run and no other is waiting."""
        return self._run_many("Run All Cells", until)

    def run_below(self, words: str, until: str) -> Locator:
        """Run Selected Cell and All Below, from the cell with `words` on."""
        self._select(words)
        return self._run_many("Run Selected Cell and All Below", until)

    def write(self, words: str, source: str) -> None:
        """Puts `source` in the place of all that the cell holds, as by pasting."""
        self.cell(words).locator(".cm-content").click()
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.insert_text(source)

    def write_last_line(self, words: str, line: str) -> None:
        """Types `line`, key by key, over the last line of the cell, after its indentation."""
        self.cell(words).locator(".cm-content").click()
        self.page.keyboard.press("ControlOrMeta+End")
        self.page.keyboard.press("Shift+Home")
        self.page.keyboard.type(line)

    def drag_slider(self, words: str, to: float) -> None:
        """Drags the slider of the cell to a place from 0 (left end) to 1 (right end) of its rail."""
        rail, handle = (self.output(words).locator(part).bounding_box() for part in (".noUi-base", ".noUi-handle"))
        self.page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
        self.page.mouse.down()
        self.page.mouse.move(rail["x"] + to * rail["width"], handle["y"] + handle["height"] / 2, steps=5)
        self.page.mouse.up()

    def in_the_dark(self) -> None:
        """Switches to the dark theme, by the menu of settings."""
        self.page.get_by_role("menuitem", name="Settings", exact=True).click()
        for item in ("Theme", "JupyterLab Dark"):
            self.page.locator(".lm-Menu").get_by_text(item, exact=True).click()
        self.page.locator('body[data-jp-theme-light="false"]').wait_for(state="attached")

    def photograph(self, name: str, words: str) -> Path:
        """Keeps what the window shows, with the cell in its middle, as build/screenshots/NAME.png."""
        self.cell(words).evaluate("cell => cell.scrollIntoView({block: 'center'})")
        self.page.wait_for_timeout(300)  # pictures are laid out after the cell came into view
        target = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=target)
        return target

    def photograph_all(self, name: str) -> None:
        """Keeps the whole notebook, a screen at a time, as NAME-01.png and so on; what waits to be seen is drawn."""
        panel = self.page.locator(".jp-Notebook .jp-WindowedPanel-outer")
        panel.evaluate("panel => panel.scrollTo(0, 0)")
        moved, number = True, 0
        while moved:
            self.page.wait_for_timeout(500)
            number += 1
            self.page.screenshot(path=SCREENSHOTS / f"{name}-{number:02d}.png")
            moved = panel.evaluate(SCROLL)

    def _index(self, words: str) -> int:
        return next(index for index, source in enumerate(self.sources) if words in source)

    def _prompt(self, words: str) -> str:
        return self.page.locator(CELLS).nth(self._index(words)).locator(PROMPT).text_content()

    def _select(self, words: str) -> None:
        self.cell(words).locator(PROMPT).click()

    def _run_many(self, item: str, until: str) -> Locator:
        before = self._prompt(until)
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name=item, exact=True).click()
        self._wait(until, before)
        self.page.wait_for_function(IDLE, arg=[CELLS, PROMPT], timeout=PATIENCE_MS)
        return self.output(until)

    def _wait(self, words: str, before: str) -> None:
        """Until the cell has run, which gives it a number that it did not have `before`."""
        self.page.wait_for_function(RUN, arg=[CELLS, PROMPT, self._index(words), before], timeout=PATIENCE_MS)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.faults.append(f"console: {message.text}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.faults.append(f"{response.status} {urlsplit(response.url).path}")

    def _asked(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob") and address.hostname != "127.0.0.1":
            self.faults.append(f"asks {address.hostname} on the network")


@contextlib.contextmanager
def open_notebook(lab: Lab, name: str) -> Iterator[Notebook]:
    """A window of headless Chromium with the notebook `name`, all of it loaded."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=NO_CALLS_HOME)
        try:
            page = browser.new_page(viewport=WINDOW)
            page.set_default_timeout(PATIENCE_MS)
            notebook = Notebook(page, lab.folder / "notebooks" / name)
            page.goto(lab.address(name))
            page.locator(CELLS).nth(len(notebook.sources) - 1).wait_for(state="attached")
            yield notebook
        finally:
            browser.close()
