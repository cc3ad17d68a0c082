"""The same repositories on services: through the packages that they need, in an environment of its own, on loopback."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.environments import Environment
from tests.support import ROOT

SERVICES = {"s3": ("s3fs>=2024.12", "moto[server]>=5"), "sftp": ("paramiko>=3", "asyncssh>=2.14")}
"""What each needs: the client, and a server to talk to."""


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)


@pytest.mark.slow
@pytest.mark.parametrize("service", SERVICES)
def test_repositories_on_a_service_are_what_they_are_elsewhere(service, tmp_path):
    client, server = SERVICES[service]
    reached = pip("download", "--no-deps", "--dest", tmp_path / "reached", client)
    if reached.returncode:
        pytest.skip(f"{client} cannot be had: {reached.stderr.strip().splitlines()[-1]}")
    made = Environment.make(tmp_path / "environment")
    installed = pip("--python", Path(made.path("scripts")) / "python", "install", client, server)
    assert installed.returncode == 0, installed.stderr[-4000:]
    made.install(ROOT)
    done = made.run("python", str(Path(__file__).with_name(f"inside_{service}.py")), str(ROOT))
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    assert "canary" not in done.stdout + done.stderr
