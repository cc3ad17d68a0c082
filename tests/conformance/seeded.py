"""Methods with one bug each, the good one that they are made of, and the check that each bug is for."""

import random
import time
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn import functional

from adapterkit import INPUT, LayerMethod, LowRank, Method, Scale, Tokens, Traits, hookimpl, match
from adapterkit_lora import LoraMethod


@attrs.frozen(kw_only=True)
class Config:
    rank: int = 2
    target_modules: str | tuple[str, ...] = "all-linear"


class Good(nn.Module):
    """LoRA in its fewest lines: ``y + 2 * up(down(x))``."""

    def __init__(self, site, config):
        super().__init__()
        self.site_name, self.is_embedding = site.name, site.kind == "embedding"
        self.down = nn.Parameter(torch.randn(config.rank, site.in_features) / site.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(site.out_features, config.rank))

    def shrink(self, x):
        if self.is_embedding:
            return functional.embedding(x, self.down.T)
        return functional.linear(x.to(self.down.dtype), self.down)

    def update(self, x):
        return 2.0 * functional.linear(self.shrink(x), self.up)

    def forward(self, x, y):
        return y + self.update(x).to(y.dtype)

    def lower(self):
        return (LowRank(self.down.detach(), self.up.detach(), 2.0),)


LOWERED, ALONE = Traits(effects=("LowRank",)), Traits()


def method(name, layer=Good, config=Config, kind=LayerMethod, traits=LOWERED, **more):
    return kind(name, config, layer, traits=traits, **more)


def alone(name, layer, **more):
    """A method that acts through its own layers."""
    return method(name, type(layer.__name__, (layer,), {}), kind=Alone, traits=more.pop("traits", ALONE), **more)


class Alone(LayerMethod):
    def lower(self, layers):
        return None


# -- options ----------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Underscored(Config):
    _hidden: int = 1


@attrs.frozen(kw_only=True)
class TakesAnything(Config):
    extra: Any = None


@attrs.frozen(kw_only=True)
class Thawed(Config):
    pass


Thawed.__setattr__ = object.__setattr__


@attrs.frozen(kw_only=True)
class NotJson(Config):
    names: Any = ("a", "b")


@attrs.frozen(kw_only=True)
class WithPatterns(Config):
    patterns: dict[str, int] = attrs.field(factory=dict)


class HasDefaults(LayerMethod):
    def build(self, config, sites=()):
        return super().build(config, sites)


class WritesConfig(LayerMethod):
    def build(self, config, sites):
        config.patterns["seen"] = config.patterns.get("seen", 0) + 1
        return super().build(config, sites)


class DecidesTwice(LayerMethod):
    def configure(self, config, sites):
        return attrs.evolve(super().configure(config, sites), rank=config.rank + 1)


class NeverLooks(LayerMethod):
    def configure(self, config, sites):
        return config


# -- the base ---------------------------------------------------------------------------------------------------------


class EditsBase(Good):
    def __init__(self, site, config):
        super().__init__(site, config)
        site.module.weight.data[0] *= 1.001


class MarksBase(Good):
    def __init__(self, site, config):
        super().__init__(site, config)
        site.module.seen_by = "MarksBase"


class WritesInput(Good):
    def forward(self, x, y):
        x.data.mul_(1.0001)  # past the counter that the core looks at
        return super().forward(x, y)


class Counts(Good):
    def __init__(self, site, config):
        super().__init__(site, config)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, y):
        self.calls += 1
        return y + self.update(x) * (1 + self.calls / 100)


class Hoards(Good):
    hoard = []  # noqa: RUF012 - that is the bug

    def __init__(self, site, config):
        super().__init__(site, config)
        self.hoard.append(self)


# -- training ---------------------------------------------------------------------------------------------------------


class Idle(Good):
    def __init__(self, site, config):
        super().__init__(site, config)
        self.unused = nn.Parameter(torch.ones(3))


class Climbs(Good):
    def update(self, x):
        right = super().update(x)
        return 2 * right.detach() - right  # the same value, and the gradient turned round


class DrawsElsewhere(Good):
    def __init__(self, site, config):
        super().__init__(site, config)
        self.down = nn.Parameter(self.down.detach() * random.random())


class Remembers(Good):
    calls = 0

    def forward(self, x, y):
        self.calls += self.training
        return y + self.update(x) * (1 + self.calls % 3)


class Reseeds(LayerMethod):
    def build(self, config, sites):
        random.seed(0)
        return super().build(config, sites)


# -- files ------------------------------------------------------------------------------------------------------------


class Fleeting(Good):
    def __init__(self, site, config):
        super().__init__(site, config)
        self.register_buffer("frozen", torch.randn(site.out_features), persistent=False)

    def update(self, x):
        return super().update(x) * self.frozen


class Hidden(Good):
    gain = 1.0

    def update(self, x):
        return super().update(x) * self.gain


class SetsHidden(Alone):
    def initialize(self, config, layers, base, examples):
        for layer in layers.values():
            layer.gain = 1.0 + len(examples) / 10


class Rounds(LayerMethod):
    def to_file(self, config, tensors):
        return super().to_file(config, {name: tensor.bfloat16() for name, tensor in tensors.items()})


class Hashes(Good):
    def update(self, x):
        return super().update(x) * (1 + hash(self.site_name) % 7)


class CopiesBase(Good):
    def __init__(self, site, config):
        super().__init__(site, config)
        self.register_buffer("weight", site.weight.detach().clone())


class FitsAll(nn.Module):
    def __init__(self, site, config):
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(200))

    def forward(self, x, y):
        return y + self.vector[: y.shape[-1]]


class FirstLayer(Alone):
    def build(self, config, sites):
        return {site.name: self.layer(site, config) for site in match(r".*\.0\..*q_proj", sites)}


# -- effects ----------------------------------------------------------------------------------------------------------


class KeepsHalf(LayerMethod):
    def finish(self, config, layers):
        for layer in layers.values():
            layer.up.data /= 2
        return config, layers


class ForgetsScale(Good):
    def lower(self):
        return (LowRank(self.down.detach(), self.up.detach(), 1.0),)


@attrs.frozen(kw_only=True)
class WithFlag(Config):
    double: bool = False


class ForgetsFlag(Good):
    def __init__(self, site, config):
        super().__init__(site, config)
        self.double = config.double

    def update(self, x):
        return super().update(x) * (1 + self.double)


# -- answers ----------------------------------------------------------------------------------------------------------


class StartsOff(Good):
    def __init__(self, site, config):
        super().__init__(site, config)
        nn.init.constant_(self.up, 1e-4)


class DoesNothing(Good):
    def update(self, x):
        return 0.0 * super().update(x)


class LooksAtNeighbours(Good):
    def update(self, x):
        mine = super().update(x)
        return mine - mine.mean(0, keepdim=True) / 2


class LooksAtAllTokens(Good):
    def update(self, x):
        mine = super().update(x)
        return mine + mine.mean(-2, keepdim=True)


class CountsTokens(Good):
    def update(self, x):
        return super().update(x) / x.shape[1]


class Caches(Good):
    cache = {}  # noqa: RUF012 - that is the bug

    def update(self, x):
        if self.training:
            return super().update(x)
        product = self.cache.setdefault((self.site_name, self.up.shape), (self.up @ self.down).detach())
        return 2.0 * functional.linear(x, product)


class Shares(Good):
    shared = {}  # noqa: RUF012 - that is the bug

    def update(self, x):
        self.shared["up"] = self.up
        time.sleep(0.0005)
        return 2.0 * functional.linear(self.shrink(x), self.shared["up"])


class Affine(nn.Module):
    def __init__(self, site, config):
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(site.out_features))
        self.shift = nn.Parameter(torch.zeros(site.out_features))

    def forward(self, x, y):
        return y * (1 + self.gain) + self.shift


# -- bases ------------------------------------------------------------------------------------------------------------


class AssumesLinear(Good):
    def __init__(self, site, config):
        super().__init__(site, config)
        self.up = nn.Parameter(torch.zeros(len(site.module.weight), config.rank))


class AssumesNoBias(nn.Module):
    def __init__(self, site, config):
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(site.out_features))

    def forward(self, x, y):
        return y * (1 + self.gain)

    def lower(self):
        return (Scale(1 + self.gain.detach(), bias=False),)


class AssumesRows(Good):
    def update(self, x):
        if not self.is_embedding:
            _rows, _tokens, _features = x.shape
        return super().update(x)


class AssumesUntied(LayerMethod):
    def build(self, config, sites):
        owners = {id(site.module): site.name for site in sites if not site.tied_to}
        _ = [owners[id(site.module)] for site in sites if site.is_head]
        return super().build(config, sites)


class TakesDtype(Good):
    def __init__(self, site, config):
        super().__init__(site, config)
        self.up = nn.Parameter(self.up.detach().to(site.weight.dtype))

    def update(self, x):
        return 2.0 * functional.linear(self.shrink(x), self.up.float())


class NeedsWeights(Good):
    """Scales by the lengths of the weight's rows, as DoRA does."""

    def __init__(self, site, config):
        super().__init__(site, config)
        self.site = site

    def update(self, x):
        return super().update(x) * self.site.weight.float().norm(dim=1)


# -- PEFT -------------------------------------------------------------------------------------------------------------


class SaysAnotherAlpha(LoraMethod):
    def to_peft(self, config):
        return {**super().to_peft(config), "lora_alpha": 1}


# -- a good method at the input ---------------------------------------------------------------------------------------


@attrs.frozen
class PromptConfig:
    tokens: int = 3


class Prompt(nn.Module):
    def __init__(self, site, config):
        super().__init__()
        self.table = nn.Parameter(torch.randn(config.tokens, site.out_features) / 10)

    def tokens(self):
        return self.table


class PromptMethod(Method):
    def build(self, config, sites):
        return {site.name: Prompt(site, config) for site in sites if site.name == INPUT}

    def lower(self, layers):
        return {name: (Tokens(layer.table.detach()),) for name, layer in layers.items()}


PROMPT = Traits(identity_start=False, stackable=False, effects=("Tokens",))
GOOD = (
    method("good"),
    alone("good_alone", Good),
    alone("honest_about_order", Affine, traits=Traits(stackable=False)),
    alone("honest_about_quantized", NeedsWeights, traits=Traits(quantized_base=False)),
    PromptMethod("good_prompt", PromptConfig, traits=PROMPT),
)


@attrs.frozen
class Bug:
    """A method, the check that is for its bug, what the check says of it, and the trait that the method lies about."""

    method: Method
    check: str
    said: str
    trait: str = ""


BUGS = (
    Bug(method("Loud"), "name_and_options_can_be_written", "lower-case"),
    Bug(method("underscored", config=Underscored), "name_and_options_can_be_written", "drop the underscore"),
    Bug(method("wrong_defaults", defaults={"learning_rate": -1.0}), "name_and_options_can_be_written", "learning_rate"),
    Bug(method("has_defaults", kind=HasDefaults), "operations_are_given_what_they_ask_for", "sites a default"),
    Bug(method("takes_anything", config=TakesAnything), "wrong_options_are_refused", "takes any value"),
    Bug(method("thawed", config=Thawed), "config_is_left_alone", "can be set"),
    Bug(method("writes_config", config=WithPatterns, kind=WritesConfig), "config_is_left_alone", "build changes"),
    Bug(method("not_json", config=NotJson), "config_survives_json", "on the way through JSON"),
    Bug(method("decides_twice", kind=DecidesTwice), "configuring_again_changes_nothing", "resolved before"),
    Bug(method("never_looks", kind=NeverLooks), "targets_that_match_nothing_are_refused", "without a word"),
    Bug(method("edits_base", EditsBase), "base_keeps_every_bit", "building changes the base: .*weight"),
    Bug(method("marks_base", MarksBase), "detach_gives_the_model_back", "left on the model"),
    Bug(alone("writes_input", WritesInput), "inputs_and_outputs_are_left_alone", "writes into x at"),
    Bug(alone("counts", Counts), "adapter_is_not_changed_by_its_use", "remember something"),
    Bug(method("hoards", Hoards), "unloading_gives_the_memory_back", "keep no layers in a cache"),
    Bug(method("idle", Idle), "training_reaches_every_tensor", "no gradient reaches .*unused"),
    Bug(method("climbs", Climbs), "training_lowers_the_loss", "after 20 steps"),
    Bug(method("draws_elsewhere", DrawsElsewhere), "training_is_repeatable", "another adapter: .*down"),
    Bug(alone("remembers", Remembers), "recomputing_activations_changes_nothing", "recomputed", "recomputable"),
    Bug(method("reseeds", kind=Reseeds), "surroundings_are_left_alone", "Python's random state"),
    Bug(method("noisy"), "importing_changes_nothing_else", "Python's random state"),
    Bug(alone("fleeting", Fleeting), "building_without_memory_tells_the_shapes", "not persistent"),
    Bug(method("hidden", Hidden, kind=SetsHidden, traits=ALONE), "nothing_is_hidden_from_the_file", "plain attribute"),
    Bug(method("rounds", kind=Rounds), "saved_and_loaded_is_the_same", "digest"),
    Bug(alone("hashes", Hashes), "a_fresh_process_answers_the_same", "answers otherwise"),
    Bug(method("copies_base", CopiesBase), "the_folder_holds_the_adapter_alone", "the base's own"),
    Bug(method("fits_all", FitsAll, kind=FirstLayer, traits=ALONE), "another_base_refuses_the_adapter", "is taken"),
    Bug(method("keeps_half", kind=KeepsHalf), "what_is_kept_acts_as_what_was_trained", "what finish keeps"),
    Bug(method("forgets_scale", ForgetsScale), "lowered_acts_as_trained", "act otherwise than the layers"),
    Bug(method("forgets_flag", ForgetsFlag, WithFlag), "every_option_is_served_as_trained", "with double=True"),
    Bug(
        method("names_too_many", traits=Traits(effects=("LowRank", "Bias"))),
        "effects_are_those_promised",
        "traits.effects names Bias, LowRank:",
        "effects",
    ),
    Bug(
        method("names_too_few", traits=Traits()),
        "effects_are_those_promised",
        "of the kinds LowRank, and .* names none",
        "effects",
    ),
    Bug(method("starts_off", StartsOff), "a_fresh_adapter_changes_nothing", "identity_start=False", "identity_start"),
    Bug(alone("does_nothing", DoesNothing), "a_trained_adapter_changes_answers", "does it act at all"),
    Bug(alone("neighbours", LooksAtNeighbours), "rows_are_answered_as_alone", "otherwise than alone"),
    Bug(alone("all_tokens", LooksAtAllTokens), "padding_changes_nothing", "padded at the right"),
    Bug(alone("counts_tokens", CountsTokens), "cached_answers_are_the_same", "with a cache the answers are"),
    Bug(alone("caches", Caches), "swapping_leaves_nothing_behind", "as another one did before it"),
    Bug(alone("shares", Shares), "threads_do_not_meet", "disturb each other"),
    Bug(alone("affine", Affine), "stacked_in_either_order", "in the other order", "stackable"),
    Bug(method("assumes_linear", AssumesLinear), "acts_on_gpt2", "size of tensor"),
    Bug(
        method("assumes_no_bias", AssumesNoBias, traits=Traits(effects=("Scale",))),
        "acts_on_biases",
        "than in training",
    ),
    Bug(alone("assumes_rows", AssumesRows), "acts_on_a_mixture_of_experts", "not enough values to unpack"),
    Bug(method("assumes_untied", kind=AssumesUntied), "acts_on_tied_embeddings", "KeyError"),
    Bug(alone("takes_dtype", TakesDtype), "acts_on_a_bfloat16_base", "is torch.bfloat16"),
    Bug(
        alone("needs_weights", NeedsWeights),
        "acts_on_a_quantized_base_or_refuses_it",
        "size of tensor",
        "quantized_base",
    ),
    Bug(SaysAnotherAlpha(name="another_alpha"), "peft_reads_what_is_saved", "PEFT answers otherwise"),
)


@hookimpl
def adapterkit_methods():
    yield from GOOD
    yield from (bug.method for bug in BUGS if bug.method.name != "noisy")
