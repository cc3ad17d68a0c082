"""What the tests of the engine share: adapters of every kind, answers that the base gives by itself, and what must be left over."""

import contextlib
import functools
import time

import attrs
import torch
from torch import nn

from adapterkit import Adapter, Base, Blend, LayerMethod, Registry, Stack, hookimpl
from adapterkit.config import build_config
from adapterkit.resident import build_layers, flatten
from adapterkit.serving import Engine, Watcher, jobs
from adapterkit.testing import tiny_tokenizer
from tests.support import make_adapter

PATIENT = 30
"""Seconds after which a test gives up."""
CLOSE = 1e-4


def until(holds, seconds=PATIENT, pause=0.01):
    """Wait for what another thread or process makes so, and tells nobody."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it has not come about"
        time.sleep(pause)


# -- a stranger's method, which acts through its own layers -----------------------------------------------------------


@attrs.frozen(kw_only=True)
class TwistConfig:
    target_modules: str | tuple[str, ...] = "all-linear"
    fails: bool = False


class Twist(nn.Module):
    """No effect says this: a bent copy of what the layer answers."""

    def __init__(self, site, config):
        super().__init__()
        self.fails = config.fails
        self.gain = nn.Parameter(torch.zeros(site.out_features))

    def forward(self, x, y):
        if self.fails:
            raise ValueError("a secret of the layer")
        return y + torch.tanh(y) * self.gain


class TwistMethod(LayerMethod):
    def lower(self, layers):
        return None


class Plugin:
    @hookimpl
    def adapterkit_methods(self):
        return (TwistMethod("twist", TwistConfig, Twist),)


def base_of(model):
    """A base with words for its 97 tokens, and a stranger's plugin."""
    registry = Registry()
    registry.add(Plugin())
    return Base(model, tokenizer=tiny_tokenizer(), registry=registry)


def twist(base, *, seed=0, **options):
    method = base.registry.method("twist")
    config = base.registry.call(
        "configure", method, config=build_config(TwistConfig, options, what="options"), sites=base.sites
    )
    stream = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(one.shape, generator=stream) for name, one in shapes(base, method, config).items()}
    return Adapter("twist", config, tensors, make_adapter(base, rank=1).manifest)


def shapes(base, method, config):
    return flatten(build_layers(base.registry, method, config, base.sites))


def poisoned(adapter, value):
    """The same with all numbers of one tensor replaced."""
    name = max(adapter.tensors)
    changed = {name: torch.full_like(adapter.tensors[name], value)}
    return Adapter(adapter.method, adapter.config, {**adapter.tensors, **changed}, adapter.manifest)


# -- every kind -------------------------------------------------------------------------------------------------------


def kinds(base):
    """Selections by what they are: together they have every action that a site may have."""
    made = functools.partial(make_adapter, base)
    low, wide = made(seed=1, rank=7), made(seed=2, rank=64, scale=0.05)
    soft, prefix = made(method="prompt_tuning", seed=3, tokens=3), made(method="prefix_tuning", seed=4, tokens=2)
    full = made(method="full", seed=5, scale=0.02)
    scaled = made(method="peft:ia3", seed=6, scale=1.0)
    return {
        "base": None,
        "lora r1": made(seed=7, rank=1),
        "lora r7": low,
        "lora r64": wide,
        "rslora": made(seed=8, rank=4, use_rslora=True),
        "dora": made(seed=9, rank=4, use_dora=True, scale=0.5),
        "lora with biases": made(seed=10, rank=2, bias="all"),
        "lora with rows": made(seed=11, rank=2, trainable_token_indices=[5, 6, 9, 40]),
        "prompt tuning": soft,
        "prefix tuning": prefix,
        "full": full,
        "ia3": scaled,
        "a stranger's": twist(base, seed=12),
        "stack": Stack(low, wide),
        "blend": Blend({low: 0.7, wide: -0.4}),
        "weighted": Blend({low: -1.5}),
        "blend of others": Blend({scaled: 0.5, low: 0.5}),
        "stack with tokens": Stack(soft, low),
        "stack with a prefix": Stack(prefix, soft, low),
    }


# -- what the base answers by itself ----------------------------------------------------------------------------------


@torch.no_grad()
def solo(base, adapter, prompt, count):
    """The ``count`` likeliest tokens after a prompt, one forward pass of all for each: no cache, no neighbours."""
    ids, ends = list(prompt), {base.tokenizer.eos_token_id}
    for _ in range(count):
        token = int(base.logits(torch.tensor([ids]), adapter=adapter)[0, -1].argmax())
        if token in ends:
            break
        ids.append(token)
    return ids[len(prompt) :]


def tokens_of(answer):
    """An answer's tokens, once it is there."""
    return [token.id for piece in answer for token in piece.tokens]


@contextlib.contextmanager
def watched_logits():
    """The logits from which each token of each answer was taken, by the answer's id."""
    seen, take = {}, jobs.Job.take

    def watched(self, token, logits):
        seen.setdefault(self.answer.id, []).append(logits.clone())
        return take(self, token, logits)

    jobs.Job.take = watched
    try:
        yield seen
    finally:
        jobs.Job.take = take


def off(found, wanted):
    """The largest difference, as a part of the largest number where that is over 1."""
    return float((found - wanted).abs().max() / max(1.0, float(wanted.abs().max())))


# -- engines ----------------------------------------------------------------------------------------------------------


class Order(Watcher):
    """Which answers were whole, in their order."""

    def __init__(self):
        self.answers = []

    def finished(self, answer):
        self.answers.append(answer)


@contextlib.contextmanager
def held(engine):
    """Within this block nothing begins: what is asked begins at once afterwards."""
    with engine._loop._lock:
        yield


def settle(engine):
    """Wait until nothing is under way, and see that nothing is held: no page, no adapter."""
    until(lambda: not (engine.stats().running or engine.stats().waiting), pause=0.002)
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.kv_pages_used) == (0, 0, 0)
    assert not stats.waiting_by_name
    assert [one for one in engine.residency.held() if one.users] == []
    pool = engine._runner.pool
    assert not any(pool._users)
    assert sorted([*pool._free, *pool._idle]) == list(range(1, pool.pages))


@contextlib.contextmanager
def serving(base, adapters=None, **options):
    """An engine that has to be sound to the end, and to leave the base as it was."""
    with Engine(base, adapters, **options) as engine:
        yield engine
        settle(engine)
        assert engine.state == "ready"
    assert engine.state == "stopped"
