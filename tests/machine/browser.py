"""A headless Chromium that trusts one authority, driven by its debugging protocol over loopback."""

import base64
import contextlib
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from machine.course import until

_QUIET = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")


class Page:
    """The one open page."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.number = socket, 0

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while (answer := json.loads(self.socket.recv(timeout=30))).get("id") != self.number:
            pass  # an event
        assert "error" not in answer, answer
        found: dict[str, Any] = answer["result"]
        return found

    def open(self, url: str) -> None:
        failed = self.ask("Page.navigate", url=url).get("errorText")
        assert not failed, f"{url}: {failed}"

    def value(self, script: str) -> Any:
        """What an expression is in the page."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def type(self, text: str) -> None:
        for character in text:
            enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
            key = enter if character == "\r" else {"key": character, "text": character}
            self.ask("Input.dispatchKeyEvent", type="keyDown", **key)
            self.ask("Input.dispatchKeyEvent", type="keyUp", key=key["key"])

    def picture(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))


@contextlib.contextmanager
def chromium(folder: Path, authority: Path) -> Iterator[Page]:
    """A browser with an empty profile in `folder`, whose only own authority is the certificate `authority`."""
    store = folder / ".pki/nssdb"
    store.mkdir(parents=True)
    for words in (["-N", "--empty-password"], ["-A", "-n", "cloud", "-t", "C,,", "-i", str(authority)]):
        subprocess.run(["certutil", words[0], "-d", f"sql:{store}", *words[1:]], check=True, timeout=30)
    profile = folder / "profile"
    env = {**{name: value for name, value in os.environ.items() if "proxy" not in name.lower()}, "HOME": str(folder)}
    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen(
            ["chromium", "--headless", "--no-sandbox", *_QUIET, "--no-proxy-server", "--remote-debugging-port=0", f"--user-data-dir={profile}",
             "--window-size=1000,700", "about:blank"], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env, start_new_session=True)  # fmt: skip
    try:
        port = until(lambda: (profile / "DevToolsActivePort").exists() and (profile / "DevToolsActivePort").read_text().split("\n")[0], 60)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=30) as answer:
            target = next(each for each in json.load(answer) if each["type"] == "page")
        with connect(target["webSocketDebuggerUrl"], max_size=1 << 26, proxy=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
