"""A page in real headless Chromium, asked over its DevTools pipe: what it logged, what it fetched, how it looks."""

import base64
import fcntl
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

DEADLINE_S: Final = 60.0
FIRST_FREE: Final = 10
FLAGS: Final = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe",
)  # fmt: skip
"""The resolver knows no host, so that a page of a test reaches nothing."""


@dataclass
class Seen:
    """What a page did: console messages and the browser's own complaints, and every address it wanted."""

    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def outside(self) -> list[str]:
        """Requests for anything but the file itself and what is inlined in it."""
        return [address for address in self.requests[1:] if not address.startswith("data:")]


class Browser:
    """One tab; commands and events go over two pipes as JSON that ends in a zero byte."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._buffer, self._number, self._session = b"", 0, ""
        self.seen = Seen()
        self._loaded = False

    def start(self) -> None:
        """Attach to a new tab and listen to all that it does."""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._ask(f"{domain}.enable")

    def open(self, page: Path, width: int, *, dark: bool = False) -> Seen:
        """Load a file in a window of some width and wait until it has loaded all that it will."""
        self.seen, self._loaded = Seen(), False
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        self._ask("Page.navigate", url=page.resolve().as_uri())
        deadline = time.monotonic() + DEADLINE_S
        while not self._loaded:
            self._take(deadline)
        self.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return self.seen

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript gives in the page (the browser's, not the page's: no policy stops it)."""
        answer = self._ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        return answer["result"].get("value")

    def screenshot(self) -> bytes:
        """The whole page as PNG."""
        return base64.b64decode(self._ask("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def pdf(self) -> bytes:
        """The page as it prints, on the paper that it asks for."""
        return base64.b64decode(self._ask("Page.printToPDF", preferCSSPageSize=True)["data"])

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + DEADLINE_S
        while True:
            answer = self._take(deadline)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def _take(self, deadline: float) -> dict[str, Any]:
        """The next message; events are noted on the way."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"the browser said nothing for {DEADLINE_S:g} s"
            piece = os.read(self._from, 1 << 20)
            assert piece, "the browser ended"
            self._buffer += piece
        line, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, told: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.seen.requests.append(told["request"]["url"])
        elif event == "Log.entryAdded":
            self.seen.console.append(f"{told['entry']['level']}: {told['entry']['text']}")
        elif event == "Runtime.consoleAPICalled":
            said = " ".join(str(part.get("value", "")) for part in told["args"])
            self.seen.console.append(f"{told['type']}: {said}")
        elif event == "Runtime.exceptionThrown":
            self.seen.console.append(f"exception: {told['exceptionDetails']['text']}")
        elif event == "Page.loadEventFired":
            self._loaded = True


@contextmanager
def browser(program: str, profile: Path) -> Iterator[Browser]:
    """A running Chromium with a profile of its own; it and all its processes are gone afterwards."""
    read_commands, write_commands = os.pipe()
    read_events, write_events = os.pipe()
    # Chromium takes its commands at 3 and answers at 4; the ends must not stand on these numbers beforehand.
    given = [fcntl.fcntl(end, fcntl.F_DUPFD, FIRST_FREE) for end in (read_commands, write_events)]
    command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(
        ["bash", "-c", f'exec "$@" 3<&{given[0]} 4>&{given[1]}', "bash", *command],
        pass_fds=given, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    for end in (read_commands, write_events, *given):
        os.close(end)
    try:
        opened = Browser(write_commands, read_events)
        opened.start()
        yield opened
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(write_commands)
        os.close(read_events)
