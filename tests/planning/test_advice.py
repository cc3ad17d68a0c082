import pytest

from adapterkit.contracts import TrainOptions
from adapterkit.errors import UnknownNameError
from adapterkit.planning.advice import RANKS, Situation, advise, rank_for
from adapterkit.planning.rules import GOALS, RULES, TRAINED, WAYS, epochs_for
from adapterkit.registry import default_registry

LARGE = 8_000_000_000
FITS = {"lora": True, "qlora": True, "prompt_tuning": True, "full": False}


def situation(goal="style", rows=1000, **changes):
    return Situation(**{"goal": goal, "rows": rows, "parameters": LARGE, "fits": FITS, **changes})


def ways(advice):
    return [one.way for one in advice.ranking]


def of(advice, way):
    return next(one for one in advice.ranking if one.way == way)


@pytest.mark.parametrize("goal", ["style", "format", "classification", "extraction", "alignment"])
def test_a_thousand_rows_make_an_adapter(goal):
    advice = advise(situation(goal))
    assert advice.best.way == "lora"
    assert any("1,000 rows" in reason for reason in advice.best.reasons)


@pytest.mark.parametrize("rows", [0, 10, 1000, 100_000])
def test_new_facts_are_looked_up_whatever_the_rows(rows):
    advice = advise(situation("facts", rows))
    assert advice.best.way == "rag"
    assert "neither be cited nor taken back" in advice.why


@pytest.mark.parametrize("rows", [0, 1, 20, 49])
@pytest.mark.parametrize("goal", sorted(set(GOALS) - {"facts", "domain"}))
def test_with_too_few_rows_a_prompt_does_more(goal, rows):
    advice = advise(situation(goal, rows))
    assert advice.best.way == "prompting"
    assert all(of(advice, way).points < advice.best.points for way in TRAINED)
    assert any("100" in change or "hundred" in change for change in of(advice, "lora").changes)


def test_without_rows_nothing_is_trained():
    assert all(of(advise(situation(rows=0)), way).points < 0 for way in TRAINED)


def test_every_weight_needs_many_rows_and_room():
    assert of(advise(situation("domain", 1000)), "full").points < 0
    many = advise(situation("domain", 50_000, fits={**FITS, "full": True}))
    assert many.best.way == "full"
    without = advise(situation("domain", 50_000))
    assert of(without, "full").points < of(many, "full").points
    assert any("too little memory" in reason for reason in of(without, "full").against)


def test_where_four_bits_alone_fit_qlora_is_first():
    advice = advise(situation(fits={**FITS, "lora": False}))
    assert advice.best.way == "qlora"
    assert "a device with more memory" in of(advice, "lora").changes[0]


def test_sensitive_data_speaks_for_looking_up_and_says_why():
    plain, sensitive = advise(situation("domain")), advise(situation("domain", sensitive=True))
    assert sensitive.best.way == "rag"
    assert of(sensitive, "lora").points < of(plain, "lora").points
    assert any("get out of it what it was trained on" in reason for reason in of(sensitive, "lora").against)
    assert any("audit" in change for change in of(sensitive, "lora").changes)


def test_no_time_for_looking_up():
    assert (
        of(advise(situation("facts", latency=10)), "rag").points
        < of(advise(situation("facts", latency=100)), "rag").points
    )
    assert any("10 ms" in reason for reason in of(advise(situation("facts", latency=10)), "rag").against)


def test_options_to_start_with_are_the_methods_own():
    methods = {method.name: method for method in default_registry().methods()}
    usual = TrainOptions().learning_rate
    for one in advise(situation()).ranking:
        if one.way in TRAINED:
            assert one.options["learning_rate"] == methods[one.way].defaults.get("learning_rate", usual)
            assert 1 <= one.options["epochs"] <= 5
        else:
            assert one.options == {}
    assert (
        of(advise(situation()), "lora").options["learning_rate"]
        >= 10 * of(advise(situation()), "full").options["learning_rate"]
    )


def test_epochs_fall_with_rows():
    found = [epochs_for(rows) for rows in (10, 300, 500, 5000, 10**6)]
    assert found == sorted(found, reverse=True) == [5.0, 5.0, 3.0, 2.0, 1.0]


def test_the_rank_grows_with_what_there_is_to_learn_and_stays_among_the_usual():
    per_rank = 2_621_440.0  # all linear layers of an 8B base
    ranks = [rank_for(situation(trained=tokens, per_rank=per_rank)) for tokens in (10**5, 10**8, 2 * 10**8, 10**10)]
    assert ranks == [8, 32, 64, 256]
    assert set(ranks) <= set(RANKS)
    assert rank_for(situation()) is None, "nothing is known of the data"


def test_an_unknown_goal_suggests_one():
    with pytest.raises(UnknownNameError, match="no goal 'stile'; did you mean 'style'"):
        advise(situation("stile"))


def test_the_tables_are_whole():
    for goal in GOALS.values():
        assert set(goal.points) == set(WAYS)
    assert len({rule.name for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert set(rule.points) <= set(WAYS)
        assert rule.says(situation(latency=20.0))
    installed = {method.name for method in default_registry().methods()}
    assert {way.method for way in WAYS.values() if way.method} <= installed


def test_each_rule_holds_somewhere_and_not_everywhere():
    tried = [
        situation(
            rows=rows, sensitive=sensitive, latency=latency, parameters=parameters, fits=dict.fromkeys(FITS, fits)
        )
        for rows in (0, 10, 60, 1000, 10**5)
        for sensitive in (False, True)
        for latency in (None, 10.0)
        for parameters in (10**8, 2 * 10**9, LARGE)
        for fits in (False, True)
    ] + [situation(fits={**FITS, "lora": False})]
    for rule in RULES:
        assert len({rule.holds(one) for one in tried}) == 2, rule.name
