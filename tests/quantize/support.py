"""Gradients of an adapter on a base, and the same base with its quantized weights written out."""

import functools
import hashlib

import torch

from adapterkit import Base, TrainOptions
from adapterkit.config import build_config
from adapterkit.data.batching import collate
from adapterkit.data.dataset import encode_rows
from adapterkit.data.rendering import Renderer
from adapterkit.registry import default_registry
from adapterkit.resident import build_layers
from adapterkit.sites import dequantize
from adapterkit.train.forward import AdapterInTraining

ROWS = [
    {"prompt": f"question number {n} about {'cards and money ' * (n % 3)}", "completion": ("yes it is", "no")[n % 2]}
    for n in range(8)
]
OPTIONS = {"rank": 4, "learning_rate": 1e-2, "batch_size": 8, "logging_steps": 1, "warmup_ratio": 0.0, "max_steps": 4}


def four_bit_layers(model):
    return [module for module in model.modules() if type(module).__name__ == "Linear4bit"]


def quantized_layers(model):
    names = ("Linear4bit", "Linear8bitLt")
    return {name: module for name, module in model.named_modules() if type(module).__name__ in names}


def written_out(folder, base):
    """The model in ``folder`` with the weights that ``base`` computes with."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=base.model.dtype)
    with torch.no_grad():
        for name, layer in quantized_layers(base.model).items():
            dense, mine = dequantize(layer), model.get_submodule(name).weight
            mine.copy_(dense if type(model.get_submodule(name)) is torch.nn.Linear else dense.T)
    return Base(model, tokenizer=base.tokenizer)


def gradients(base, options=None, rows=ROWS, **of_method):
    """The gradient of each parameter of a LoRA whose factors are all different from zero, the same on each base."""
    registry = default_registry()
    method = registry.method("lora")
    config = build_config(method.config, {"rank": 4, **of_method}, what="options")
    config = registry.call("configure", method, config=config, sites=base.sites)
    layers = build_layers(registry, method, config, base.sites).to(base.device)
    stream = torch.Generator().manual_seed(0)
    for _, parameter in sorted(layers.named_parameters()):
        parameter.data = torch.randn(parameter.shape, generator=stream).to(parameter.device) * 0.05
    run = options or TrainOptions()
    module = AdapterInTraining(base.model, "lora", layers, base.runtime, registry.objective("sft"), run).train()
    examples = encode_rows(rows, Renderer(base.tokenizer, 128), registry).examples
    loss = module(functools.partial(collate, pad_id=0, device=base.device)(examples))
    (loss.total / loss.tokens).backward()
    return {name: parameter.grad for name, parameter in layers.named_parameters()}


def worst_error(ones, others):
    """The largest relative error of a gradient."""
    assert ones.keys() == others.keys()
    return max(float((one - others[name]).norm() / others[name].norm()) for name, one in ones.items())


def bits(model):
    """One digest of every parameter, and of everything by which a weight is quantized."""
    total = hashlib.sha256()
    for name, parameter in model.named_parameters():
        state = getattr(parameter, "quant_state", None)
        more = state.as_dict().items() if state is not None else ()
        layer = model.get_submodule(name.rpartition(".")[0])
        scales = (
            parameter.SCB
            if getattr(parameter, "SCB", None) is not None
            else getattr(getattr(layer, "state", None), "SCB", None)
        )
        for key, one in [(name, parameter), *more, ("SCB", scales)]:
            value = (
                one.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
                if isinstance(one, torch.Tensor)
                else one
            )
            total.update(f"{key} {getattr(one, 'dtype', '')} {value!r}".encode())
    return total.hexdigest()
