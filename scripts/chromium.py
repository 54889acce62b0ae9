"""A headless Chromium (apt: chromium chromium-driver) and a folder served to it on loopback."""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from selenium import webdriver


def missing() -> str | None:
    """What has to be installed before a browser can be opened, or None."""
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if absent:
        return f"{' and '.join(absent)} not found: apt install chromium chromium-driver"
    return None


class Quiet(SimpleHTTPRequestHandler):
    """Serve files without a line for each, modules as what they are."""

    extensions_map: ClassVar = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
    }

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def served(folder: Path, handler: type[SimpleHTTPRequestHandler] = Quiet) -> Iterator[str]:
    """Serve a folder on a free port, and lend its address, without a slash at its end."""
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def opened(*flags: str, logs: bool = False) -> Iterator[webdriver.Chrome]:
    """Lend a browser with a profile of its own, which is removed with it.

    Args:
        flags: more of Chromium's switches, without their dashes.
        logs: keep the console's lines and the requests, for `get_log`.

    Raises:
        FileNotFoundError: if Chromium or its driver is not installed.
    """
    if reason := missing():
        raise FileNotFoundError(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    if logs:
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (
            "headless",
            "no-sandbox",
            "disable-gpu",
            "disable-quic",
            "no-first-run",
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            f"user-data-dir={profile}",
            *flags,
        ):
            options.add_argument(f"--{flag}")
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        driver = webdriver.Chrome(options=options, service=service)
        driver.set_script_timeout(600)
        try:
            yield driver
        finally:
            driver.quit()
