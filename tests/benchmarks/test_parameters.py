"""The counts that the literature states hold here, and the script that prints them runs."""

import json
import subprocess
import sys

from tests.support import ROOT


def test_every_stated_count_holds():
    script = ROOT / "benchmarks" / "parameters.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=300)
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(figures) == 5
    assert [figure["what"] for figure in figures if not figure["met"]] == []
    assert figures[0]["ours"] == "131,072"
