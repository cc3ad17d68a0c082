import attrs
import pytest
from attrs.validators import ge
from hypothesis import given
from hypothesis import strategies as st

from adapterkit import ConfigError
from adapterkit.config import build_config, canonical_json, from_dict, to_dict


@attrs.frozen(kw_only=True)
class Options:
    rank: int = attrs.field(default=8, validator=ge(1))
    rate: float = 0.1
    names: str | tuple[str, ...] = "all"
    pattern: dict[str, int] = attrs.field(factory=dict)
    flag: bool = False
    limit: int | None = None


def build(**options):
    return build_config(Options, options, what="options")


def test_lists_become_tuples_and_whole_numbers_become_floats():
    assert build(names=["b", "a"], rate=1) == Options(names=("b", "a"), rate=1.0)


def test_sets_are_sorted_so_that_equal_options_are_one_configuration():
    assert build(names={"b", "a"}) == Options(names=("a", "b"))


def test_every_problem_is_said_at_once():
    with pytest.raises(ConfigError) as caught:
        build(rnak=3, rate="high", rank=0, flag=1)
    assert len(caught.value.problems) == 4
    text = str(caught.value)
    assert "rnak: no such option; did you mean 'rank'?" in text
    assert "rate: must be a number, not 'high'" in text
    assert "rank: must be >= 1: 0" in text
    assert "flag: must be true or false, not 1" in text


def test_what_may_be_of_several_types_is_said_in_one_breath():
    with pytest.raises(ConfigError, match="limit: must be a whole number or none, not 'many'"):
        build(limit="many")


@pytest.mark.parametrize("value", [True, "8", 8.0, None])
def test_what_is_no_whole_number_is_not_taken_for_one(value):
    with pytest.raises(ConfigError, match="rank: must be a whole number"):
        build(rank=value)


@given(
    st.builds(
        Options,
        rank=st.integers(1, 10**6),
        rate=st.floats(allow_nan=False, allow_infinity=False),
        names=st.one_of(st.text(), st.lists(st.text()).map(tuple)),
        pattern=st.dictionaries(st.text(), st.integers()),
        flag=st.booleans(),
        limit=st.none() | st.integers(),
    )
)
def test_a_configuration_survives_json(options):
    assert from_dict(Options, to_dict(options), what="options") == options


def test_canonical_json_knows_no_nan():
    assert canonical_json({"b": 1, "a": [1.5]}) == '{"a":[1.5],"b":1}'
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json(float("nan"))
