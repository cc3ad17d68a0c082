"""Adapters of every kind of method, and what it means that several act at once, computed apart from the runtime.

The definition, in float64: a copy of the model whose weights are the base's plus each adapter's change of them, times its
weight; before the sequence stand the prefixes and soft prompts in the order of the parts.
"""

import copy

import attrs
import torch
from torch import nn
from transformers import DynamicCache

from adapterkit import INPUT, Base, Bias, Dense, LayerConfig, LayerMethod, LowRank, Rows, Scale, Traits, hookimpl
from adapterkit.registry import Registry
from adapterkit.resident import build_layers, flatten, load_layers, lower
from tests.support import make_adapter

CLOSE = {"atol": 2e-5, "rtol": 2e-5}


class OwnLayer(nn.Module):
    """What cannot be said as effects: it looks at the output."""

    def __init__(self, site, config):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(site.out_features))

    def forward(self, x, y):
        return y + torch.tanh(y) * self.scale.to(y.dtype)


class Plugin:
    @staticmethod
    @hookimpl
    def adapterkit_methods():
        yield LayerMethod("own_layers", LayerConfig, OwnLayer, traits=Traits())


METHODS = {
    "lora": {"rank": 3},
    "dora": {"method": "lora", "rank": 2, "use_dora": True},
    "biases": {"method": "lora", "rank": 2, "bias": "all"},
    "tokens": {"method": "lora", "rank": 2, "trainable_token_indices": (5, 17)},
    "copies": {"method": "lora", "rank": 2, "modules_to_save": ("norm", "ln_f")},
    "qlora": {"method": "qlora", "rank": 4, "use_rslora": True},
    "full": {"method": "full", "scale": 0.02},
    "prompt_tuning": {"method": "prompt_tuning", "tokens": 3},
    "prefix_tuning": {"method": "prefix_tuning", "tokens": 2},
    "peft:ia3": {"method": "peft:ia3", "scale": 1.0},
    "peft:oft": {"method": "peft:oft"},
    "peft:hira": {"method": "peft:hira"},
    "peft:loha": {"method": "peft:loha"},
    "peft:ln_tuning": {"method": "peft:ln_tuning"},
    "own_layers": {"method": "own_layers"},
}
AT_INPUT = ("prompt_tuning", "prefix_tuning")
ALONE = ("own_layers",)


def a_base(model, **options):
    registry = Registry()
    registry.add(Plugin())
    return Base(model, registry=registry, **options)


def made(base, name, seed=0):
    options = {**METHODS[name], "seed": seed}
    if base.model.config.model_type == "gpt2" and name == "copies":
        options["modules_to_save"] = ("ln_f",)
    elif name == "copies":
        options["modules_to_save"] = ("norm",)
    if name != "own_layers":
        return make_adapter(base, **options)
    method = base.registry.method(name)
    config = base.registry.call("configure", method, config=method.config(), sites=base.sites)
    layers = build_layers(base.registry, method, config, base.sites)
    stream = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(one.shape, generator=stream) * 0.3 for name, one in flatten(layers).items()}
    return attrs.evolve(make_adapter(base, seed=seed), method=name, config=config, tensors=tensors)


def effects_on(base, adapter):
    method = base.registry.method(adapter.method)
    return lower(base.registry, method, load_layers(base.registry, method, adapter, base.sites))


def applied(effects, parameters, kind):
    """Parameters after effects in turn: weights are ``(out_features, in_features)``."""
    own, now = parameters, dict(parameters)
    for one in effects:
        if isinstance(one, LowRank):
            now["weight"] = now["weight"] + one.scale * (one.up.double() @ one.down.double())
        elif isinstance(one, Dense):
            now[one.parameter] = now[one.parameter] + one.delta.double()
        elif isinstance(one, Bias):
            now["bias"] = now.get("bias", 0.0) + one.vector.double()
        elif isinstance(one, Scale) and one.side == "input":
            now["weight"] = now["weight"] + own["weight"] * (one.vector.double() - 1)
        elif isinstance(one, Scale):
            left = 0.0 if one.bias else own.get("bias", 0.0)
            now["weight"] = now["weight"] * one.vector.double()[:, None]
            if "bias" in now:
                now["bias"] = (now["bias"] - left) * one.vector.double() + left
        else:
            assert isinstance(one, Rows)
            table = (now["weight"].T if kind == "embedding" else now["weight"]).clone()
            table[one.index] = one.rows.double()
            now["weight"] = table.T if kind == "embedding" else table
    return now


@torch.no_grad()
def defined(base, twin, parts, ids):
    """The logits of ``Blend(parts)``, by its definition."""
    model = copy.deepcopy(twin)
    if model.config.tie_word_embeddings:  # an adapter may change the one and not the other
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.clone())
    tables, prefixes = [], []
    changes = {}
    for adapter, weight in parts:
        for site, here in effects_on(base, adapter).items():
            if site == INPUT:
                (one,) = here
                (tables if hasattr(one, "embeddings") else prefixes).append(one)
                continue
            kind = next(one.kind for one in base.sites if one.name == site)
            turned = kind in ("conv1d", "embedding")
            module = twin.get_submodule(site)
            own = {
                name: one.T if turned and name == "weight" else one
                for name, one in module.named_parameters(recurse=False)
            }
            for name, value in applied(here, own, kind).items():
                change = (value - own.get(name, 0.0)) * weight
                key = (site, name, turned and name == "weight")
                changes[key] = changes.get(key, 0.0) + change
    for (site, name, turned), change in changes.items():
        module = model.get_submodule(site)
        before = getattr(module, name, None)
        setattr(module, name, nn.Parameter((0.0 if before is None else before) + (change.T if turned else change)))
    return _run(model, tables, prefixes, ids)


def _run(model, tables, prefixes, ids):
    embeds = model.get_input_embeddings()(ids)
    if tables:
        table = torch.cat([one.embeddings for one in tables]).double()
        embeds = torch.cat([table.expand(len(ids), -1, -1), embeds], dim=1)
    cache, before = None, 0
    if prefixes:
        cache, before = DynamicCache(), sum(one.keys.shape[2] for one in prefixes)
        for layer in range(len(prefixes[0].keys)):
            keys, values = (
                torch.cat([getattr(one, kind)[layer] for one in prefixes], dim=1).double()
                for kind in ("keys", "values")
            )
            cache.update(*(one.expand(len(ids), -1, -1, -1).contiguous() for one in (keys, values)), layer)
    places = torch.arange(before, before + embeds.shape[1])[None]
    mask = torch.ones(len(ids), before + embeds.shape[1], dtype=torch.long)
    logits = model(inputs_embeds=embeds, attention_mask=mask, position_ids=places, past_key_values=cache).logits
    return logits[:, -ids.shape[1] :]
