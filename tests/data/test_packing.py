import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterkit import Example
from adapterkit.data.packing import pack

LENGTHS = st.lists(st.integers(2, 40), min_size=1, max_size=20)


def examples(lengths):
    start = 100
    made = []
    for length in lengths:  # every token is another, so that each can be found again
        ids = tuple(range(start, start + length))
        made.append(Example(ids, (-100,) * (length // 2) + ids[length // 2 :]))
        start += length
    return made


@settings(deadline=None)
@given(LENGTHS)
def test_every_token_is_there_once_at_its_own_position_with_its_own_label(lengths):
    given = examples(lengths)
    batch = pack(given, pad_id=0)
    where = {
        int(token): (row, column)
        for row, ids in enumerate(batch["input_ids"])
        for column, token in enumerate(ids)
        if token
    }
    assert len(where) == sum(lengths)
    for one in given:
        for place, (token, label) in enumerate(zip(one.input_ids, one.labels, strict=True)):
            assert batch["position_ids"][where[token]] == place
            assert batch["labels"][where[token]] == (label if place else -100)


@settings(deadline=None)
@given(LENGTHS)
def test_a_token_looks_at_its_own_example_up_to_itself_and_nowhere_else(lengths):
    given = examples(lengths)
    batch = pack(given, pad_id=0)
    owner = {token: number for number, one in enumerate(given) for token in one.input_ids}
    for ids, mask in zip(batch["input_ids"].tolist(), batch["segment_mask"][:, 0], strict=True):
        for column, token in enumerate(ids):
            seen = [ids[other] for other in range(len(ids)) if mask[column, other] == 0]
            if token:
                assert seen == [other for other in ids[: column + 1] if owner.get(other) == owner[token]]
            else:
                assert seen, "padding that looks at nothing would be NaN"


@settings(deadline=None)
@given(st.lists(st.integers(10, 60), min_size=32, max_size=64))
def test_hardly_anything_is_padding(lengths):
    batch = pack(examples(lengths), pad_id=0)
    assert batch["input_ids"].numel() <= 1.35 * sum(lengths)


def test_padding_and_first_tokens_are_never_trained():
    batch = pack(examples([5, 3, 9]), pad_id=0)
    assert (batch["labels"][batch["input_ids"] == 0] == -100).all()
    assert (batch["labels"][batch["position_ids"] == 0] == -100).all()
    assert batch["segment_mask"].dtype == torch.float32
