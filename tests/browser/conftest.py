"""The browser of this machine: none is fetched."""

import os
import shutil

import pytest
from playwright.sync_api import sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser():
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        if "PYRAFUSE_NEEDS_BROWSER" in os.environ:
            pytest.fail(f"no browser here, and PYRAFUSE_NEEDS_BROWSER is set: install one of {', '.join(BROWSERS)}")
        pytest.skip(f"no browser here: install one of {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()
