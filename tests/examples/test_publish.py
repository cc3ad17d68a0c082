import subprocess
import sys

import pytest

from tests.support import ROOT


@pytest.mark.slow
def test_it_runs_and_says_what_it_does():
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "publish.py"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "rolled back to guard@1" in said
    assert "published hf://org/guard@v2" in said
    assert said[-2].endswith("True")
    assert said[-1] == "it says: spam"
