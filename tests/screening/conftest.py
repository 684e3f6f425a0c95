"""A browser, and a server of the screening page."""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install '.[dev]'"
    )
    from playwright._impl import _driver

    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip(f"no browser found ({', '.join(BROWSERS)}); apt-get install chromium")
    node = subprocess.run(
        [_driver.compute_driver_executable()[0], "--version"],
        capture_output=True,
        text=True,
        check=False,
    )
    if node.returncode:
        pytest.skip(f"Playwright's node does not run ({node.stderr.strip()}); make browser")
    with sync_api.sync_playwright() as playwright:
        # Chromium's sandbox does not work for root, nor in most containers.
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass(frozen=True)
class Server:
    """A running `steatosis-d2 screen serve`."""

    url: str
    process: subprocess.Popen

    @property
    def port(self):
        return re.search(r":(\d+)/", self.url)[1]

    def kill(self):
        """As a power cut does: SIGKILL."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def serve():
    """A function: (labels, images) -> Server."""
    processes = []

    def start(labels, images, *, port="0"):
        command = [sys.executable, "-m", "steatosis_d2", "screen", "serve", labels]
        process = subprocess.Popen(
            [*command, "--images", images, "--port", port], stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        process.stdout.readline()
        return Server(re.search(r"http\S+", process.stdout.readline())[0], process)

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def open_page(browser):
    """A function: (server, reviewer) -> page in a browser of its own, once it shows an image."""
    from screening_page import WINDOW, wait_for_image

    contexts, faults = [], []

    def open_one(server, reviewer, *, init_script=None):
        contexts.append(browser.new_context(viewport=WINDOW))
        page = contexts[-1].new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        if init_script:
            page.add_init_script(init_script)
        page.goto(server.url)
        page.get_by_placeholder("Name or initials").fill(reviewer)
        page.keyboard.press("Enter")
        return wait_for_image(page)

    yield open_one
    for context in contexts:
        context.close()
    assert faults == [], "the script ran without an error"
