"""Pages of keys and values: nobody's are another's, and what is given back can be had again."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterkit import ConfigError
from adapterkit.serving.stepping.pool import PAGE_SIZE, KVPool, KVShape

SHAPE = KVShape(((2, 4, 3),) * 2, torch.float32)
CPU = torch.device("cpu")
WORDS = list(range(10 * PAGE_SIZE))


def pool_of(pages=9, **options):
    return KVPool(SHAPE, pages, CPU, **options)


def begun(pool, root, tokens):
    """A sequence with room for its tokens, all of which were computed."""
    pages, found = pool.begin(root, tokens)
    assert pool.extend(pages, len(tokens))
    return pages, found


def left(pool, root, tokens):
    """The same, ended."""
    pages, found = begun(pool, root, tokens)
    pool.keep(pages, tokens)
    pool.end(pages)
    return found


def sound(pool, *used):
    """Every page is somebody's, free, or kept: never two of these."""
    tables = [page for pages in used for page in pages.table]
    assert 0 not in tables
    assert [pool._users[page] for page in range(pool.pages)] == [tables.count(page) for page in range(pool.pages)]
    lying = [*pool._free, *pool._idle]
    assert sorted({*tables, *lying}) == list(range(1, pool.pages))
    assert len(lying) == len(set(lying)) == pool.available
    assert not set(lying) & set(tables)
    assert pool.used == len(set(tables))
    assert set(pool._idle) <= set(pool._name_of)
    assert {name: page for page, name in pool._name_of.items()} == pool._known


def test_a_page_has_the_bytes_that_are_counted_for_it():
    pool = pool_of(5)
    assert SHAPE.page_bytes * 5 == sum(one.numel() * one.element_size() for one in (*pool.keys, *pool.values))


def test_no_room_is_said_and_nothing_is_taken():
    pool = pool_of(4)
    pages, _ = begun(pool, "", WORDS[: 2 * PAGE_SIZE])
    other, _ = pool.begin("", [1])
    assert not pool.extend(other, 2 * PAGE_SIZE)
    assert other.table == []
    assert pool.extend(other, PAGE_SIZE)
    assert not pool.extend(pages, 3 * PAGE_SIZE)
    sound(pool, pages, other)
    with pytest.raises(ConfigError, match="no room for keys and values"):
        pool_of(1)


@pytest.mark.parametrize("count", [1, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE, 2 * PAGE_SIZE + 1])
def test_what_is_found_again_is_full_pages_but_never_the_last_token(count):
    pool = pool_of()
    assert left(pool, "a", WORDS[:count]) == 0
    again, found = pool.begin("a", WORDS[:count])
    assert found == (count - 1) // PAGE_SIZE * PAGE_SIZE
    pool.end(again)
    assert pool.begin("a", WORDS[: count + PAGE_SIZE])[1] == count // PAGE_SIZE * PAGE_SIZE


@pytest.mark.parametrize(
    "changed",
    [
        ("b", WORDS),
        ("", WORDS),
        ("a", [99, *WORDS[1:]]),
        ("a", [-1, *WORDS]),
        ("a", WORDS[PAGE_SIZE:]),
    ],
)
def test_nothing_is_found_for_other_adapters_or_behind_other_tokens(changed):
    pool = pool_of(20)
    left(pool, "a", WORDS)
    root, tokens = changed
    assert pool.begin(root, tokens)[1] == 0


def test_only_what_was_computed_is_kept():
    pool = pool_of()
    pages, _ = begun(pool, "a", WORDS[: 3 * PAGE_SIZE])
    pool.keep(pages, WORDS[: 2 * PAGE_SIZE - 1])  # the rest was not read yet
    pool.end(pages)
    assert pool.begin("a", WORDS[: 3 * PAGE_SIZE])[1] == PAGE_SIZE


def test_nothing_is_kept_without_reuse():
    pool = pool_of(reuse=False)
    left(pool, "a", WORDS[: 2 * PAGE_SIZE])
    assert pool.begin("a", WORDS[: 2 * PAGE_SIZE])[1] == 0


def test_the_longest_unused_goes_first_and_the_end_of_a_sequence_before_its_beginning():
    pool = pool_of(5)
    left(pool, "old", WORDS[: 2 * PAGE_SIZE])
    left(pool, "new", WORDS[: 2 * PAGE_SIZE])
    begun(pool, "x", [1])  # takes one of four
    assert pool.begin("old", WORDS[: 2 * PAGE_SIZE + 1])[1] == PAGE_SIZE
    assert pool.begin("new", WORDS[: 2 * PAGE_SIZE + 1])[1] == 2 * PAGE_SIZE


def test_a_page_is_zero_when_it_is_taken():
    pool = pool_of(3)
    pages, _ = begun(pool, "a", WORDS[: 2 * PAGE_SIZE])
    for whole in (*pool.keys, *pool.values):
        whole[pages.table] = torch.inf
    pool.end(pages)
    other, _ = begun(pool, "b", WORDS[: 2 * PAGE_SIZE])
    assert sorted(other.table) == [1, 2]
    assert not any(whole.any() for whole in (*pool.keys, *pool.values))


def test_what_is_written_lies_at_its_position():
    pool = pool_of()
    pages, _ = begun(pool, "a", WORDS[: 3 * PAGE_SIZE])
    keys, values = torch.randn(2, 20, 4), torch.randn(2, 20, 3)
    pool.write(1, pages, 10, keys, values)
    for place in range(20):
        page, slot = pages.table[(10 + place) // PAGE_SIZE], (10 + place) % PAGE_SIZE
        assert torch.equal(pool.keys[1][page, slot], keys[:, place])
        assert torch.equal(pool.values[1][page, slot], values[:, place])
    assert not pool.keys[0].any()


def test_what_is_forgotten_is_found_no_more_and_nothing_is_lost():
    pool = pool_of()
    left(pool, "a", WORDS[: 2 * PAGE_SIZE])
    held, _ = begun(pool, "b", WORDS[:PAGE_SIZE])
    pool.keep(held, WORDS[:PAGE_SIZE])
    pool.forget()
    assert pool.begin("a", WORDS[: 2 * PAGE_SIZE])[1] == 0
    sound(pool, held)
    pool.end(held)
    sound(pool)


@given(seed=st.integers(0, 2**32), reuse=st.booleans())
@settings(max_examples=60)
def test_whatever_happens_every_page_is_accounted_for(seed, reuse):
    luck, pool, running = random.Random(seed), pool_of(12, reuse=reuse), []
    truth = {}  # what each page would hold, by what it was computed from
    for _ in range(60):
        what = luck.random()
        if what < 0.4:
            root, words = luck.choice("ab"), [luck.randrange(2)] * luck.randint(1, 4 * PAGE_SIZE)
            pages, found = pool.begin(root, words)
            for number in range(found // PAGE_SIZE):  # never another's
                assert truth[pages.table[number]] == (root, tuple(words[: (number + 1) * PAGE_SIZE]))
            if pool.extend(pages, len(words)):
                running.append((pages, words))
                for number in range(found // PAGE_SIZE, len(pages.table)):
                    truth[pages.table[number]] = (root, tuple(words[: (number + 1) * PAGE_SIZE]))
            else:
                pool.end(pages)
        elif what < 0.5:
            pool.forget()
        elif running:
            pages, words = running.pop(luck.randrange(len(running)))
            pool.keep(pages, words[: luck.randint(0, len(words))])
            pool.end(pages)
        sound(pool, *[pages for pages, _ in running])
    for pages, _ in running:
        pool.end(pages)
    sound(pool)
    assert pool.used == 0
