"""``adapterkit serve``, as a process of its own."""

import os
import re
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from adapterkit.cli import main
from tests.support import EXAMPLE_BASE, make_adapter

CALL = "import sys; from adapterkit.cli import main; sys.exit(main())"
SERVE = [sys.executable, "-c", CALL, "serve", str(EXAMPLE_BASE)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, example_base):
    return make_adapter(example_base).save(tmp_path_factory.mktemp("adapters") / "cards")


def test_it_serves_until_it_is_told_to_stop(folder, tmp_path):
    environment = {**os.environ, "ADAPTERKIT_API_KEY": "key-1", "ADAPTERKIT_STORE": str(tmp_path / "store")}
    command = [*SERVE, "--adapter", f"cards={folder}", "--port", "0", "--max-batch", "4", "--base-name", "tiny"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            lines = []
            while not any(line.startswith("  curl ") for line in lines):
                lines.append(process.stderr.readline())
                assert lines[-1], lines
            url = re.search(r"http://127\.0\.0\.1:\d+", "".join(lines)).group()
            headers = {"authorization": "Bearer key-1"}
            models = httpx.get(f"{url}/v1/models", headers=headers).json()["data"]
            assert [model["id"] for model in models] == ["tiny", "cards"]
            assert httpx.get(f"{url}/v1/models").status_code == 401
            body = {"model": "cards", "messages": [{"role": "user", "content": "x"}], "max_tokens": 300, "stream": True}
            with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60) as response:
                chunks = response.iter_lines()
                next(chunks)
                process.send_signal(signal.SIGTERM)  # what is under way is finished
                assert [line for line in chunks if line][-1] == "data: [DONE]"
            assert process.wait(60) in (0, -signal.SIGTERM)
            log = process.stderr.read()
        finally:
            process.kill()
    assert '"adapter": "cards"' in log
    assert "key-1" not in "".join(lines) + log


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--adapter", "cards"], "write --adapter cards="),
        (["--adapter", "cards=/nowhere"], "no adapter '/nowhere'"),
        (["--host", "0.0.0.0"], "ADAPTERKIT_API_KEY"),
        (["--port", "99999"], "port"),
        (["--max-batch", "0"], "--max-batch"),
        (["--no-store", "--store", "x"], "--no-store"),
        (["--allow-source", "/nowhere"], "neither a folder"),
    ],
)
def test_a_misuse_is_said_before_anything_is_served(arguments, said, capsys, monkeypatch):
    monkeypatch.delenv("ADAPTERKIT_API_KEY", raising=False)
    anywhere = [] if "--port" in arguments else ["--port", "0"]
    assert main(["serve", str(EXAMPLE_BASE), *anywhere, *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_port_in_use_is_said_before_the_base_is_read(capsys, monkeypatch):
    monkeypatch.setattr("adapterkit.cli.serve.open_base", lambda *_, **__: pytest.fail("it was read"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", str(EXAMPLE_BASE), "--no-store", "--port", str(taken.getsockname()[1])]) == 2
    assert "--port: nothing can listen at 127.0.0.1:" in capsys.readouterr().err


def test_without_the_packages_it_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "adapterkit.serving.http", None)
    assert main(["serve", str(EXAMPLE_BASE)]) == 2
    assert "adapterkit[serve]" in capsys.readouterr().err
