"""JupyterLab and Chromium as a learner has them, started for a test and gone after it.

The server listens on loopback behind a token, in a new folder that holds copies of some notebooks. Its settings, its
workspaces and the workbook lie in that folder too: nothing of the learner's is read or written.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
START_SECONDS, STOP_SECONDS = 300, 30  # guards: it takes a few, and a minute on a machine that does other things beside
FORGOTTEN_SECONDS = 900
END_ALONE = ("ServerApp.shutdown_no_activity_timeout", "MappingKernelManager.cull_idle_timeout")
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NO_NEWS = {"fetchNews": "false", "checkForUpdates": False}  # JupyterLab asks about it in its first window


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: address with its token, and the folder with `notebooks/` and, later, `workbook/`."""

    url: str
    token: str
    folder: Path

    def address(self, notebook: str) -> str:
        return f"{self.url}lab/tree/notebooks/{notebook}?token={self.token}"


def missing() -> str:
    """What keeps a browser test from running and how to get it, in one line; empty when nothing does."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "Playwright is not installed; `make browser` installs it and runs the browser tests"
    if chromium() is None:
        return (
            "no Chromium found; install one (Debian, Ubuntu: apt install chromium; elsewhere: .venv/bin/playwright "
            "install chromium), or set CHROMIUM to the path of a Chromium or Chrome"
        )
    return ""


def chromium() -> str | None:
    """Path of the browser: CHROMIUM, else one on the PATH, else the one that Playwright downloaded."""
    if told := os.environ.get("CHROMIUM"):
        return told
    if found := next(filter(None, map(shutil.which, CHROMIUMS)), None):
        return found
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


@contextlib.contextmanager
def jupyter_lab(notebooks: list[str]) -> Iterator[Lab]:
    """JupyterLab with copies of these learner's notebooks (file names); the folder is deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="minivdm-lab-") as name:
        folder = Path(name)
        (folder / "notebooks").mkdir()
        for notebook in notebooks:
            shutil.copy(ROOT / "notebooks" / notebook, folder / "notebooks" / notebook)
        options = ["--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", "--ServerApp.root_dir=.", "--no-browser"]
        options += [f"--{what}={FORGOTTEN_SECONDS}" for what in END_ALONE]  # should the test be killed
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            options.append("--allow-root")
        command, env = [sys.executable, "-m", "jupyterlab", *options], _environment(folder)
        with open(folder / "server.log", "wb") as log:
            server = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
        try:
            yield _wait_for(server, folder)
        finally:
            _stop(server)


def _environment(folder: Path) -> dict[str, str]:
    own = folder / "jupyter"
    settings = own / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(NO_NEWS))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "MINIVDM_WORKBOOK"))}
    env |= {f"JUPYTER_{name}_DIR": str(own / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    env |= {"JUPYTERLAB_SETTINGS_DIR": str(own / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(own / "workspaces")}
    env |= {"IPYTHONDIR": str(own / "ipython"), "OMP_NUM_THREADS": "1"}
    # the token by the environment: a command line can be read by everybody on the machine
    return env | {"JUPYTER_TOKEN": secrets.token_hex(24)}


def _wait_for(server: subprocess.Popen, folder: Path) -> Lab:
    """The server says where it listens in a file of its runtime folder, shortly before it does."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        for path in (folder / "jupyter" / "runtime").glob("jpserver-*.json"):
            with contextlib.suppress(json.JSONDecodeError, ConnectionRefusedError):  # it is being written, or early
                told = json.loads(path.read_text())
                socket.create_connection(("127.0.0.1", told["port"]), timeout=10).close()
                return Lab(told["url"], told["token"], folder)
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{(folder / 'server.log').read_text(errors='replace')[-3000:]}")


def _stop(server: subprocess.Popen) -> None:
    """Asks the server to end, which ends its kernels; kernels whose server was killed end by themselves."""
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
