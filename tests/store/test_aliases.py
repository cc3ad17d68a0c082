"""Aliases: moved by compare-and-set, rolled back, protected; the journal says so."""

import datetime as dt

import pytest

from adapterkit import ConfigError, ConflictError, SelectionError, UnknownNameError


def pointed(store, alias="cards@production"):
    return str(store.resolve(alias))


def test_an_alias_moves_from_where_it_is_expected(filled):
    assert pointed(filled) == "cards@2"
    digest = filled.resolve("cards@2").digest
    for expect in ("cards@2", 2, filled.resolve("cards@2"), f"cards@sha256:{digest}", f"sha256:{digest[:8]}"):
        filled.promote("cards@3", "production", expect=expect)
        filled.promote("cards@2", "production")
    filled.promote("cards@1", "staging", expect=None)
    assert {alias: str(one) for alias, one in filled.aliases().items()} == {
        "cards@production": "cards@2",
        "cards@staging": "cards@1",
    }


@pytest.mark.parametrize("expect", ["cards@production", "cards", "cards@", True, False, 2.0, ["cards@2"]])
def test_what_moves_by_itself_is_not_expected(filled, expect):
    """``expect="cards@production"`` would be true wherever it points: nobody would have said where."""
    for protected in (False, True):
        with pytest.raises(ConfigError, match="does not fit"):
            filled.promote("cards@3", "production", expect=expect, why="x")
        with pytest.raises(ConfigError, match="does not fit"):
            filled.rollback("cards@production", expect=expect, why="x")
        assert pointed(filled) == "cards@2"
        if not protected:
            filled.protect("cards@production")


def test_of_two_versions_that_are_one_adapter_the_digest_means_either(filled, adapters):
    assert str(filled.add(adapters[1], "cards")) == "cards@4"  # as cards@2, to which production points
    filled.promote("cards@3", "production", expect=f"sha256:{adapters[1].digest}")
    with pytest.raises(ConflictError, match="points at cards@3, not at cards@4"):
        filled.promote("cards@1", "production", expect=f"sha256:{adapters[1].digest}")


@pytest.mark.parametrize("expect", ["cards@1", 1, None])
def test_an_alias_that_points_elsewhere_does_not_move(filled, expect):
    count = len(filled.history())
    with pytest.raises(ConflictError, match="cards@production points at cards@2, not at"):
        filled.promote("cards@3", "production", expect=expect)
    with pytest.raises(ConflictError, match="cards@new is not there yet, not at cards@1"):
        filled.promote("cards@3", "new", expect=1)
    assert pointed(filled) == "cards@2"
    assert len(filled.history()) == count


def test_another_names_version_is_not_expected(filled, adapters):
    filled.add(adapters[0], "tone")
    with pytest.raises(ConfigError, match="tone@1 is no version of 'cards'"):
        filled.promote("cards@3", "production", expect="tone@1")


@pytest.mark.parametrize("alias", ["7", "sha256:12345678", "sha256", "Production", "a/b", "", "production "])
def test_an_alias_is_plain_and_no_number(filled, alias):
    with pytest.raises(ConfigError, match="does not fit"):
        filled.promote("cards@1", alias)


def test_promoting_to_where_it_points_changes_nothing(filled):
    count = len(filled.history())
    filled.promote("cards@2", "production", why="again")
    assert len(filled.history()) == count


def test_each_rollback_goes_one_step_further_back(filled):
    filled.promote("cards@3", "production")
    assert str(filled.rollback("cards@production", why="bad answers")) == "cards@2"
    assert str(filled.rollback("cards@production")) == "cards@1"
    with pytest.raises(SelectionError, match="cards@1 is the first version that it points at"):
        filled.rollback("cards@production")
    filled.promote("cards@3", "production")
    assert str(filled.rollback("cards@production")) == "cards@1"  # cards@2 was rolled back, and is out of its past


def test_a_rollback_may_expect_too(filled):
    with pytest.raises(ConflictError, match="points at cards@2, not at cards@3"):
        filled.rollback("cards@production", expect=3)
    assert str(filled.rollback("cards@production", expect=2)) == "cards@1"


def test_a_rollback_to_what_is_gone_says_so(filled):
    filled.remove("cards@1", who="ann")
    with pytest.raises(SelectionError, match=r"cards@1 was removed at .* by ann; promote another"):
        filled.rollback("cards@production")
    assert pointed(filled) == "cards@2"


def test_a_protected_alias_moves_for_who_says_from_where_and_why(filled):
    filled.protect("cards@production")
    filled.protect("cards@production")
    for options in ({}, {"why": "better"}, {"expect": 2}):
        with pytest.raises(SelectionError, match="cards@production is protected"):
            filled.promote("cards@3", "production", **options)
        with pytest.raises(SelectionError, match="cards@production is protected"):
            filled.rollback("cards@production", **options)
    with pytest.raises(SelectionError, match="not deleted; unprotect it first"):
        filled.unalias("cards@production")
    assert pointed(filled) == "cards@2"
    filled.promote("cards@3", "production", expect=2, why="better")
    filled.rollback("cards@production", expect=3, why="worse")
    filled.unprotect("cards@production")
    filled.unalias("cards@production")
    with pytest.raises(UnknownNameError, match="no alias 'cards@production'"):
        filled.resolve("cards@production")
    actions = [one.action for one in filled.history("cards@production")]
    assert actions == ["promote", "promote", "protect", "promote", "rollback", "unprotect", "unalias"]


def test_an_alias_begins_anew_after_it_was_taken_away(filled):
    filled.unalias("cards@production")
    filled.promote("cards@3", "production", expect=None)
    with pytest.raises(SelectionError, match="cannot be rolled back"):
        filled.rollback("cards@production")


def test_a_version_that_an_alias_points_at_is_not_removed(filled):
    with pytest.raises(SelectionError, match="cards@production points at it"):
        filled.remove("cards@2")
    assert "cards@2" in filled


def test_the_journal_says_who_when_from_to_and_why(filled):
    filled.promote("cards@3", "production", why="scores 0.94", who="ann")
    *_, last = filled.history()
    assert (last.who, last.action, last.name, last.alias, last.before, last.after, last.why) == (
        "ann",
        "promote",
        "cards",
        "production",
        2,
        3,
        "scores 0.94",
    )
    assert abs(dt.datetime.fromisoformat(last.at) - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)
    assert [one.action for one in filled.history("cards@3")] == ["add", "promote"]
    assert filled.history("cards") == filled.history()
    assert filled.history("tone") == []


def test_what_was_live_at_any_moment_is_known(filled):
    moves = filled.history("cards@production")
    filled.unalias("cards@production")
    filled.remove("cards@1")
    assert {name: str(one) for name, one in filled.live(moves[0].at).items()} == {"cards@production": "cards@1"}
    assert filled.live(moves[0].at)["cards@production"].state == "removed"
    moment = dt.datetime.fromisoformat(moves[1].at)
    assert {name: str(one) for name, one in filled.live(moment).items()} == {"cards@production": "cards@2"}
    assert filled.live(moment - dt.timedelta(days=1)) == {}
    assert filled.live() == {}
    for wrong in ("yesterday", "2026-05-01T12:00:00", dt.datetime(2026, 5, 1)):  # noqa: DTZ001 - that is the point
        with pytest.raises(ConfigError, match="does not fit"):
            filled.live(wrong)


def test_the_journals_times_never_go_back(filled, monkeypatch):
    monkeypatch.setattr("adapterkit.store.journal.now", lambda: "2001-01-01T00:00:00.000000Z")
    filled.promote("cards@3", "production")
    times = [one.at for one in filled.history()]
    assert times == sorted(times)
    assert filled.verify().entries == len(times)
