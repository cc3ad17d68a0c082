"""The example that merges two adapters, made small."""

import subprocess
import sys

import pytest

from tests.support import ROOT


@pytest.mark.slow
def test_the_example_gives_a_row_for_each_way_of_putting_adapters_together():
    command = [sys.executable, ROOT / "examples" / "merge.py", "--rows", "4", "--steps", "1"]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    rows = [line.split(" | ") for line in said if line.startswith("| ")][1:]
    assert len(rows) == 25
    assert all(len(row) == 4 and all(cell.rstrip(" |").endswith("%") for cell in row[1:]) for row in rows)
    assert said[-1].startswith("accuracy on 4 and 4 held-out rows; learned weights: {'cards': ")
