"""The same repositories on S3: through s3fs, in an environment of its own, against moto's server."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.environments import Environment
from tests.support import ROOT

NEEDED = ("s3fs>=2024.12", "moto[server]>=5")


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)


@pytest.mark.slow
def test_repositories_on_s3_are_what_they_are_elsewhere(tmp_path):
    reached = pip("download", "--no-deps", "--dest", tmp_path / "reached", NEEDED[0])
    if reached.returncode:
        pytest.skip(f"s3fs cannot be had: {reached.stderr.strip().splitlines()[-1]}")
    made = Environment.make(tmp_path / "environment")
    installed = pip("--python", Path(made.path("scripts")) / "python", "install", *NEEDED)
    assert installed.returncode == 0, installed.stderr[-4000:]
    made.install(ROOT)
    done = made.run("python", str(Path(__file__).with_name("inside_s3.py")), str(ROOT))
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    assert "canary" not in done.stdout + done.stderr
