"""Two minutes of what `make soak` does for half an hour."""

import json
import subprocess
import sys

import pytest

from tests.support import ROOT


@pytest.mark.slow
def test_two_minutes_of_everything_at_once():
    command = [sys.executable, "-m", "benchmarks.soak", "--seconds", "120", "--sample", "150", "--json"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=570)
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    assert told["problems"] == []
    assert done.returncode == 0
    assert told["greedy answers"]["compared with the base's own"] == 150
    # each of these did happen, or it was no soak
    evicted = {name: count for name, count in told["server"].items() if name.startswith("evictions")}
    assert min(evicted.values()) > 0
    assert told["requests"]["answered"] > 0
    assert told["requests"]["left"] > 0
    changes = told["changes"]
    assert changes.get("added: 503", 0) > 0 or told["full disk"].startswith("not tried")
    for kind in ("added", "replaced", "removed", "alias moved", "alias rolled back", "pinned"):
        assert changes[f"{kind}: 200"] > 0, kind
