"""A headless Chromium driven by the DevTools protocol over a pipe, with the standard library only."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 30.0  # seconds for one answer
KEYS = {"Enter": ("\r", 13), " ": (" ", 32), "Tab": ("", 9)}


def program() -> str | None:
    """Where a Chromium is, if there is one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


# The protocol wants the pipes at the file descriptors 3 and 4.
_START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for place, end in enumerate(ends, 3):
    os.dup2(end, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One page in one browser; `with Browser(folder) as page: page.open(file)`. A page may ask for what lies at the
    `home` that was visited, and for nothing else."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.errors: list[str] = []
        self._next, self._session, self._left = 0, "", b""
        self._home = "file:"

    def __enter__(self) -> Browser:
        found = program()
        assert found is not None
        read_commands, self._commands = os.pipe()
        self._answers, write_answers = os.pipe()
        flags = (
            "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run "
            f"--disable-extensions --remote-debugging-pipe --user-data-dir={self.scratch}"
        )
        line = [str(read_commands), str(write_answers), found, *flags.split(" "), "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", _START, *line],
            pass_fds=(read_commands, write_answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._session = ""
        try:
            self.send("Browser.close")
            self._process.wait(10)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._commands)
        os.close(self._answers)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer; notes errors that the page reports meanwhile."""
        self._next += 1
        message: dict[str, Any] = {"id": self._next, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            found = self._receive()
            if found.get("id") == self._next:
                assert "error" not in found, f"{method}: {found['error']}"
                return dict(found["result"])
            self._note(found)

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._answers], [], [], max(end - time.monotonic(), 0))
            assert ready, "the browser doesn't answer"
            part = os.read(self._answers, 1 << 16)
            assert part, "the browser has ended"
            self._left += part
        message, _, self._left = self._left.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        found = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(found["exceptionDetails"]))
        elif event.get("method") == "Log.entryAdded" and found["entry"]["level"] == "error":
            self.errors.append(str(found["entry"]))
        elif event.get("method") == "Network.requestWillBeSent":
            url = found["request"]["url"]
            if not url.startswith((self._home, "data:", "about:")):
                self.errors.append(f"asked the network for {url}")

    def open(self, file: Path, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Load a file at this size of window, without a network."""
        self._load(file.resolve().as_uri(), "file:", width, height, dark)

    def visit(self, address: str, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Load what a server of this machine gives."""
        self._load(address, address, width, height, dark)

    def _load(self, address: str, home: str, width: int, height: int, dark: bool) -> None:
        self._home = home
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        offline = {"offline": home == "file:", **_UNLIMITED}
        self.send("Network.emulateNetworkConditions", **offline)
        self.send("Page.navigate", url=address)
        self.wait(
            f"document.readyState === 'complete' && location.href.startsWith({json.dumps(home)})"
        )

    def wait(self, condition: str) -> None:
        """Until the JavaScript expression holds."""
        end = time.monotonic() + PATIENCE
        while not self.run(condition):
            assert time.monotonic() < end, f"never came true: {condition}"
            time.sleep(0.02)

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """A key, as a person presses it."""
        text, code = KEYS[key]
        named = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **named)
        self.send("Input.dispatchKeyEvent", type="keyUp", **named)

    def click(self, selector: str) -> None:
        """The mouse, on the middle of the first element that fits."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{found}.scrollIntoView({{block: 'center'}})")
        middle = "[b.x + b.width / 2, b.y + b.height / 2]"
        box = self.run(f"(b => {middle})({found}.getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.send(
                "Input.dispatchMouseEvent",
                type=kind,
                x=box[0],
                y=box[1],
                button="left",
                clickCount=1,
            )

    def picture(self, path: Path, whole: bool = False) -> None:
        """A PNG of what is seen, or of the whole page."""
        found = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))


_UNLIMITED = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
