"""The kernels of a decode step beside the formulas in float64, and what a row's answer may not depend on."""

import pytest
import torch

from adapterkit.kernels import decoding
from adapterkit.runtime.actions import AddLowRank
from adapterkit.testing import tiny_llama
from tests.serving.test_graphed import answered, drawn, step_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
TYPES = pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
LENGTHS = (1, 15, 16, 17, 255, 256, 257, 511, 700, 1999, 2000)


@pytest.fixture
def counters():
    return decoding.Counters(torch.device("cuda"))


@pytest.fixture(autouse=True)
def poisoned():
    """Memory that is given out holds no number: what a kernel leaves unwritten is seen."""
    before = torch.utils.deterministic.fill_uninitialized_memory, torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.utils.deterministic.fill_uninitialized_memory = before[0]
    torch.use_deterministic_algorithms(before[1])


def random(*shape, dtype=torch.float32):
    return torch.randn(shape, device="cuda", dtype=dtype)


def off(found, wanted):
    """How far, as a part of the size; not a number where anything is none."""
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def paged(rows, most, heads, size, dtype):
    """Keys and values, every page of which is somebody's, and whose."""
    each = -(-most // 16)
    table = (torch.randperm(rows * each, device="cuda") + 1).view(rows, each)
    keys, values = (random(1 + rows * each, 16, heads, size, dtype=dtype) for _ in range(2))
    return keys, values, table


@TYPES
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (8, 2), (16, 2)])
def test_a_token_is_kept_and_attends_to_all_before_it(dtype, bound, heads, kv_heads, size, counters):
    keys, values, table = paged(len(LENGTHS), 2000, kv_heads, size, dtype)
    lengths = torch.tensor(LENGTHS, device="cuda")
    parts = [heads * size, kv_heads * size, kv_heads * size]
    q, k, v = random(len(LENGTHS), sum(parts), dtype=dtype).split(parts, dim=1)
    turn = random(2, len(LENGTHS), size, dtype=dtype).unbind()
    wide = [one.double() for one in (q, k, v)], [one.double() for one in turn], keys.double(), values.double()
    turned = decoding.store(q, k, v, turn, keys, values, table, lengths)
    expected = decoding.store(*wide[0], wide[1], *wide[2:], table, lengths)
    assert off(turned, expected) < bound
    assert off(keys, wide[2]) < bound
    assert off(values, wide[3]) < bound
    found = decoding.attend(turned, keys, values, table, lengths, size**-0.5, 2000, counters)
    wanted = decoding.attend(expected, *wide[2:], table, lengths, size**-0.5, 2000, counters)
    assert off(found, wanted) < bound
    assert not counters.at_least(1).any()


@TYPES
@pytest.mark.parametrize("rows", [1, 3, 32, 64, 100])
@pytest.mark.parametrize(
    ("size", "widths", "rank"),
    [(64, (64, 16, 16), 16), (4096, (96, 40), 64), (112, (72,), 64), (9008, (200,), 16), (96, (9000, 9000), 128)],
)
def test_layers_with_their_low_rank_updates(dtype, bound, rows, size, widths, rank, counters):
    x, bias = random(rows, size, dtype=dtype), random(sum(widths), dtype=dtype)
    layers = [random(width, size, dtype=dtype) for width in widths]
    down, up = random(len(widths), 128, size, dtype=dtype), random(128, sum(widths), dtype=dtype)
    weights = random(rows, 128) * (torch.rand(rows, 128, device="cuda") < 0.5)
    weights[:, 3] = 0
    exact = decoding.shrink(x.double(), down.double(), weights.double(), rank, counters)
    down[:, 3] = torch.inf  # nobody's
    low = decoding.shrink(x, down, weights, rank, counters)
    assert off(low, exact) < bound
    wide = x.double(), [one.double() for one in layers], bias.double()
    wanted = decoding.project(*wide, exact, up.double(), counters)
    assert off(decoding.project(x, layers, bias, low, up, counters), wanted) < bound
    plain = decoding.project(x, layers, bias, None, None, counters)
    assert off(plain, decoding.project(*wide, None, None, counters)) < bound
    assert off(decoding.expand_(plain, widths, low, up, counters), wanted) < bound
    assert not counters.at_least(1).any()


@TYPES
def test_norms_and_gates(dtype, bound):
    x, weight = random(33, 1, 3000, dtype=dtype), random(3000, dtype=dtype)
    assert off(decoding.norm(x, weight, 1e-5), decoding.norm(x.double(), weight.double(), 1e-5)) < bound
    assert off(decoding.gate(x[:, 0]), decoding.gate(x[:, 0].double())) < bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rows_bits_depend_on_no_other_row(dtype):
    changes = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}
    base, step = step_of(tiny_llama(**changes).to(dtype), "cuda")
    sites = [site for site in base.sites if site.kind == "linear"]

    def plan():
        return {
            one.name: AddLowRank(
                random(16, one.in_features, dtype=dtype), random(one.out_features, 16, dtype=dtype) / 50
            )
            for one in sites
        }

    plans, ids = [plan() for _ in range(4)], drawn(8)
    tables = [[1 + 2 * row, 2 + 2 * row] for row in range(8)]
    parts = [[(plans[row % 4], 1.0)] for row in range(8)]
    first = answered(step, ids, parts, tables=tables)
    other = drawn(8) // 2 + 3
    for place in (0, 3, 7):  # the row of number 1, elsewhere, among rows of other tokens and with other adapters
        given = other.clone()
        given[place] = ids[1]
        mixed = [[(plans[(row - place + 1) % 4], 1.0)] for row in range(8)]
        found = answered(step, given, mixed, tables=tables[::-1])
        assert torch.equal(found[place], first[1])


def test_a_replay_reads_what_has_changed_since_it_was_captured():
    _, step = step_of(tiny_llama(), "cuda")
    ids = drawn(2)
    bare = answered(step, ids, [[], []])
    captured = len(step._graphs)
    assert torch.equal(answered(step, ids, [[], []], tables=[[9, 4], [2, 7]]), bare)
    assert torch.equal(answered(step, ids.flip(0), [[], []]), bare.flip(0))
    assert len(step._graphs) == captured
