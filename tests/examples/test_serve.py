import subprocess
import sys

import pytest

from tests.support import ROOT


@pytest.mark.slow
def test_it_serves_and_says_what_moved():
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "serve.py"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "served: base cards guard" in said
    (streamed,) = [line for line in said if line.startswith("streamed: ")]
    assert "".join(streamed.removeprefix("streamed: ").replace("'", "").split()) == "card_arrival"
    moves = [line.rpartition(": ") for line in said if line.startswith(("guard@production is", "moved", "back"))]
    assert [what for what, *_ in moves] == [
        "guard@production is version 1",
        "moved to version 2",
        "back at version 1",
    ]
    before, after, again = (float(score.rstrip("%")) for *_, score in moves)
    assert before == again < after
    assert said[-1].split() == ["rollback", "2", "->", "1", "a", "customer", "complained"]
