"""Patterns by which ranks and alphas are given to sites: PEFT's meaning, and no stranger's pattern takes for ever."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterkit import ConfigError, pattern_value

NAMES = ["model.layers.0.self_attn.q_proj", "model.layers.10.self_attn.q_proj", "q_proj", "lm_head", "model.xq_proj"]
pieces = st.sampled_from(
    ["q_proj", "layers", ".", "0", "10", "self_attn", "x", "model", "lm_head", ".*", "[01]", "|", "\\."]
)


@given(
    patterns=st.lists(st.lists(pieces, min_size=1, max_size=5).map("".join), min_size=1, max_size=4),
    name=st.sampled_from(NAMES),
)
def test_the_first_pattern_that_a_name_ends_with_counts_as_in_peft(patterns, name):
    chosen = next((p for p in sorted(patterns) if re.fullmatch(rf"(?:.*\.)?(?:{p})", name)), None)
    assert pattern_value({p: p for p in patterns}, name, None) == chosen


def test_thousands_of_whole_names_take_no_time():
    patterns = {f"model.layers.{number}.mlp.experts.up_proj": number for number in range(5000)}
    start = time.perf_counter()
    for number in range(0, 5000, 500):
        assert pattern_value(patterns, f"model.layers.{number}.mlp.experts.up_proj", -1) == number
    assert time.perf_counter() - start < 2.0


def test_many_slow_patterns_are_stopped_together():
    slow = {rf"model\.laye(.|..|...)+[0-9]{{{number}}}": 2 for number in range(1, 200)}
    start = time.perf_counter()
    with pytest.raises(ConfigError, match="timed out"):
        pattern_value(slow, NAMES[0], 1)
    assert time.perf_counter() - start < 3.0
