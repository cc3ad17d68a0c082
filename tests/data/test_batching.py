"""Every row once in each epoch, in an order that the seed decides; padding that is never trained."""

from hypothesis import given, settings
from hypothesis import strategies as st

from adapterkit.contracts import Example
from adapterkit.data.batching import batches, collate

lengths = st.lists(st.integers(1, 100), max_size=300)


@settings(deadline=None)
@given(lengths, st.integers(1, 9), st.integers(0, 5), st.integers(0, 3), st.booleans())
def test_every_row_comes_once_and_only_one_batch_is_short(lengths, size, seed, epoch, grouped):
    drawn = batches(lengths, size, seed, epoch, group_by_length=grouped)
    assert sorted(row for batch in drawn for row in batch) == list(range(len(lengths)))
    assert sum(len(batch) != size for batch in drawn) <= 1
    assert drawn == batches(lengths, size, seed, epoch, group_by_length=grouped)


def test_seeds_and_epochs_differ():
    orders = [batches([1] * 64, 4, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(one != other for index, one in enumerate(orders) for other in orders[:index])


def test_grouping_saves_padding_and_shuffles_the_batches():
    lengths = [(17 * n) % 101 + 1 for n in range(800)]

    def padding(drawn):
        return sum(max(lengths[r] for r in batch) * len(batch) for batch in drawn) - sum(lengths)

    grouped = batches(lengths, 8, 1, 0, group_by_length=True)
    assert padding(grouped) < padding(batches(lengths, 8, 1, 0, group_by_length=False)) / 5
    longest = [max(lengths[row] for row in batch) for batch in grouped]
    assert longest != sorted(longest, reverse=True)


def test_the_order_is_the_same_in_every_process():
    assert batches([5] * 6, 2, 42, 0, group_by_length=False) == [[4, 5], [1, 0], [3, 2]]


def test_rows_are_padded_at_the_right_by_place_not_by_id():
    pad = 0
    batch = collate([Example((5, 6, 0), (-100, 6, 0)), Example((7, 0), (7, 0))], pad)
    assert batch["input_ids"].tolist() == [[5, 6, 0], [7, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 0], [7, 0, -100]]
