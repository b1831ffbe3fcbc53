"""Firefox, driven through Marionette, the protocol that it carries itself.

Playwright drives a Firefox build of its own, and Selenium needs geckodriver. Neither is a Debian package, so the tests
speak to the installed Firefox.
"""

import base64
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
XVFB = shutil.which("Xvfb")  # without a display Firefox has no WebGL
CLOSED_PORT = 9
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of WebDriver's references to elements
START_SECONDS = 60


class Firefox:
    """One browser with one tab and a new profile.

    Args:
        folder: an empty folder for the profile and downloads.
        preferences: values of about:config.
    """

    def __init__(self, folder: Path, preferences: dict[str, bool | int | str]) -> None:
        self.downloads = folder / "downloads"
        self.downloads.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        wanted = {
            "marionette.port": port,
            "webgl.force-enabled": True,
            "browser.download.folderList": 2,
            "browser.download.dir": str(self.downloads),
            **preferences,
        }
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in wanted.items()]
        (folder / "user.js").write_text("".join(lines))
        display = ["Xvfb", "-displayfd", "1", "-screen", "0", "1280x1000x24"]
        self._xvfb = subprocess.Popen(display, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._xvfb.stdout is not None
        environment = os.environ | {"DISPLAY": f":{self._xvfb.stdout.readline().strip()}"}
        command = [
            str(FIREFOX),
            "--marionette",
            "--no-remote",
            "--width=1280",
            "--height=1000",
            "--profile",
            str(folder),
        ]
        with (folder / "firefox.log").open("w") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        self._received, self._number = b"", 0
        self._socket = self._connect(port)
        self._socket.settimeout(300)
        self._read()
        self._send("WebDriver:NewSession", {})

    def _connect(self, port: int) -> socket.socket:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port))
            except OSError:
                if time.monotonic() > end:
                    self.close()
                    raise
                time.sleep(0.1)

    def _read(self) -> list[object]:
        """The next message: its length, a colon, JSON."""
        while b":" not in self._received:
            self._received += self._socket.recv(1 << 16)
        head, _, rest = self._received.partition(b":")
        while len(rest) < int(head):
            rest += self._socket.recv(1 << 20)
        self._received = rest[int(head) :]
        message: list[object] = json.loads(rest[: int(head)])
        return message

    def _send(self, name: str, arguments: dict[str, object]) -> object:
        self._number += 1
        message = json.dumps([0, self._number, name, arguments]).encode()
        self._socket.sendall(b"%d:%s" % (len(message), message))
        _, _, error, result = self._read()
        if error:
            raise RuntimeError(f"{name}: {error}")
        return result["value"] if isinstance(result, dict) and "value" in result else result

    def open(self, address: str) -> None:
        self._send("WebDriver:Navigate", {"url": address})

    def run(self, script: str, *arguments: object) -> object:
        """What the body of a function returns that sees the page's elements, not its variables;
        promises are awaited.
        """
        return self._send("WebDriver:ExecuteScript", {"script": script, "args": list(arguments)})

    def wait_for(self, expression: str, seconds: float = 120) -> None:
        """Until a JavaScript expression is true in the page."""
        end = time.monotonic() + seconds
        while not self.run(f"return Boolean({expression})"):
            assert time.monotonic() < end, f"not true after {seconds} s: {expression}"
            time.sleep(0.1)

    def choose(self, selector: str, file: Path) -> None:
        """Gives a file to an input, as a user's dialogue does."""
        element = self._send("WebDriver:FindElement", {"using": "css selector", "value": selector})
        assert isinstance(element, dict)
        self._send("WebDriver:ElementSendKeys", {"id": element[ELEMENT], "text": str(file)})

    def downloaded(self, pattern: str, seconds: float = 30) -> Path:
        """The one complete file with such a name among the downloads."""
        end = time.monotonic() + seconds
        while True:
            files = [file for file in self.downloads.glob(pattern) if file.stat().st_size]
            if files and not list(self.downloads.glob("*.part")):
                return files[0]
            assert time.monotonic() < end, f"no {pattern} was downloaded in {seconds} s"
            time.sleep(0.1)

    def screenshot(self) -> bytes:
        """The visible part of the page as a PNG file."""
        return base64.b64decode(str(self._send("WebDriver:TakeScreenshot", {"full": False})))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._xvfb.terminate()
        self._xvfb.wait(30)
        if self._xvfb.stdout:
            self._xvfb.stdout.close()
