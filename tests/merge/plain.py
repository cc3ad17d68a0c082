"""Merge strategies as their papers define them, value by value in float64: slow, and hardly to be got wrong."""

import math

import torch


def value(delta, place):
    return float(delta.reshape(-1)[place])


def every(deltas, function):
    """A change of which each value is what a function makes of the values of all changes at its place."""
    made = [function([value(delta, place) for delta in deltas]) for place in range(deltas[0].numel())]
    return torch.tensor(made, dtype=torch.float64).reshape(deltas[0].shape)


def by_size(delta):
    """Places, the largest value first; of equal ones the first."""
    return sorted(range(delta.numel()), key=lambda place: (-abs(value(delta, place)), place))


def keep(delta, places):
    kept = torch.zeros(delta.numel(), dtype=torch.float64)
    for place in places:
        kept[place] = value(delta, place)
    return kept.reshape(delta.shape)


def count(delta, density):
    return max(1, int(density * delta.numel()))


def trim(delta, density):
    return keep(delta, by_size(delta)[: count(delta, density)])


def trim_both(delta, density, gamma):
    dropped = int(gamma * delta.numel())
    return keep(delta, by_size(delta)[dropped : dropped + count(delta, density)])


def rescale(kept, delta, chances, how):
    if how == "probability":
        return kept / chances
    if how == "l1" and kept.abs().sum() > 0:
        return kept * (delta.double().abs().sum() / kept.abs().sum())
    return kept


def drop(delta, chances, how, stream):
    """Keep each value with its chance."""
    drawn = torch.rand(delta.shape, generator=stream).double()
    chances = torch.as_tensor(chances, dtype=torch.float64).expand(delta.shape)
    if bool((chances >= 1).all()):
        return delta.double()
    return rescale(torch.where(drawn < chances.float().double(), delta.double(), 0), delta, chances, how)


def chances(delta, density, epsilon):
    """From ``density - epsilon`` to ``density + epsilon``, by rank in the row."""
    rows = delta.reshape(-1, delta.shape[-1]).double()
    made = torch.full_like(rows, density)
    if density < 1 and rows.shape[1] > 1:
        for row, target in zip(rows, made, strict=True):
            order = sorted(range(len(row)), key=lambda place, row=row: (abs(float(row[place])), place))
            for rank, place in enumerate(order):
                target[place] = density - epsilon + 2 * epsilon * rank / (len(row) - 1)
    return made.reshape(delta.shape)


def total(deltas, weights, scaling=1.0):
    return every(deltas, lambda values: scaling * sum(w * x for w, x in zip(weights, values, strict=True)))


def sign(number):
    return (number > 0) - (number < 0)


def agree(deltas, weights, majority_sign_method="total", vote="weighted", normalize="weights", scaling=1.0):
    def one(values):
        voices = [x * w if vote == "weighted" else x for w, x in zip(weights, values, strict=True)]
        votes = sum(voices) if majority_sign_method == "total" else sum(map(sign, voices))
        majority = 1 if votes >= 0 else -1
        there = [(w, x) for w, x, voice in zip(weights, values, voices, strict=True) if sign(voice) == majority]
        divisor = {"weights": sum(abs(w) for w, _ in there), "count": len(there), "none": 1}[normalize]
        return scaling * sum(w * x for w, x in there) / (divisor or 1)

    return every(deltas, one)


def angle(one, other):
    lengths = float(one.norm() * other.norm())
    return math.acos(max(-1.0, min(1.0, float((one * other).sum()) / lengths)))


def slerp(one, other, t):
    turn = angle(one, other)
    return (math.sin((1 - t) * turn) * one + math.sin(t * turn) * other) / math.sin(turn)


def model_stock(deltas):
    n = len(deltas)
    pairs = [(one, other) for number, one in enumerate(deltas) for other in deltas[:number]]
    cosine = max(0.0, sum(math.cos(angle(one, other)) for one, other in pairs) / len(pairs))
    return n * cosine / (1 + (n - 1) * cosine) * sum(deltas) / n


def sce(deltas, select_topk, scaling):
    spread = every(deltas, lambda values: sum((x - sum(values) / len(values)) ** 2 for x in values) / len(values))
    if select_topk < 1:
        places = by_size(spread.float())[: int(int(spread.count_nonzero()) * select_topk)]
        deltas = [keep(delta, places) for delta in deltas]
    sizes = [float((delta.double() ** 2).mean()) for delta in deltas]
    return agree(deltas, sizes, vote="equal", scaling=scaling)


def axes(matrix):
    """Orthonormal axes of what the columns of a matrix span."""
    vectors, sizes, _ = torch.linalg.svd(matrix.double())
    return vectors[:, : int((sizes > 1e-6 * sizes[0]).sum())]
