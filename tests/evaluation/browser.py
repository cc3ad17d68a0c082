"""A page in a real browser: Chromium, driven through its own debugging pipe, with real key presses."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run")
PATIENCE = 30.0


class Tab:
    """One tab; messages end with a NUL on the pipe."""

    def __init__(self, read, write):
        self._read, self._write, self._number, self._left, self.session, self.seen = read, write, 0, b"", None, []

    def call(self, method, **params):
        """The answer to a command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self.session and not method.startswith("Target."):
            message["sessionId"] = self.session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            found = self._next()
            if found.get("id") == self._number:
                assert "error" not in found, found
                return found.get("result", {})
            self.seen.append(found)
        raise TimeoutError(method)

    def _next(self):
        while b"\0" not in self._left:
            more = os.read(self._read, 2**20)
            if not more:
                raise EOFError("the browser is gone")
            self._left += more
        message, _, self._left = self._left.partition(b"\0")
        return json.loads(message)

    def value(self, expression):
        """What an expression is in the page; anything that it throws fails."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key):
        """A key, as a keyboard sends it."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def wait(self, expression):
        """Until an expression is true."""
        until = time.monotonic() + PATIENCE
        while not self.value(expression):
            assert time.monotonic() < until, expression
            time.sleep(0.05)


@contextlib.contextmanager
def opened(page, folder, width=1280, height=900):
    """A tab with the file ``page``; downloads go to ``folder``."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    (in_read, in_write), (out_read, out_write) = os.pipe(), os.pipe()
    # Chromium reads commands from file 3 and answers on file 4
    start = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
    command = [sys.executable, "-c", start, str(in_read), str(out_write), CHROMIUM, *OPTIONS]
    command += [f"--user-data-dir={folder}/profile", "about:blank"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    browser = subprocess.Popen(command, pass_fds=(in_read, out_write), **quiet)
    os.close(in_read)
    os.close(out_write)
    try:
        tab = Tab(out_read, in_write)
        target = tab.call("Target.createTarget", url="about:blank")["targetId"]
        tab.session = tab.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            tab.call(f"{domain}.enable")
        tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        tab.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        tab.call("Page.navigate", url=page.absolute().as_uri())
        tab.wait("document.readyState === 'complete' && location.protocol === 'file:'")
        yield tab
    finally:
        browser.kill()
        browser.wait()
        os.close(out_read)
        os.close(in_write)
