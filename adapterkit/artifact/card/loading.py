"""How to load an adapter or a model, as code that can be copied: here, in PEFT, in transformers and in vLLM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit.artifact.engines import room_in_vllm
from adapterkit.artifact.markup import code, literal, plain

from .about import REVISION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .about import About

__all__ = ["load_adapter", "load_model"]

FOLDER = "path/to/this/folder"


def load_adapter(about: About) -> Iterator[str]:
    """Blocks of Markdown."""
    yield from _here(about)
    if about.has_peft_form and about.base:
        yield "With PEFT:"
        where, revision = _on_hub(about)
        yield code(
            "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f"model = AutoModelForCausalLM.from_pretrained({_base(about)})\n"
            f"model = PeftModel.from_pretrained(model, {literal(where or _folder(about))}{revision})\n"
            f"tokenizer = AutoTokenizer.from_pretrained({_base(about)})\n"
            'turns = [{"role": "user", "content": "..."}]\n'
            'inputs = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)\n'
            "answer = model.generate(**inputs, max_new_tokens=64)[0, inputs['input_ids'].shape[1]:]\n"
            "print(tokenizer.decode(answer, skip_special_tokens=True))"
        )
    yield from _vllm(about)


def load_model(about: About) -> Iterator[str]:
    """The same of a whole model."""
    where, revision = _on_hub(about)
    yield code(
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({literal(where or '.')}{revision})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({literal(where or '.')}{revision})"
    )
    if where:
        pinned = f" --revision {about.publication.revision}" if revision else ""
        yield "With vLLM:"
        yield code(f"vllm serve {where}{pinned}", "bash")


def _here(about: About) -> Iterator[str]:
    if about.place:
        yield "With adapterkit:"
    elif about.said is None and (about.base_id or not about.base):
        yield "In this folder, with adapterkit:"
    else:
        yield "With adapterkit, from where the base's folder lies:"
    place = literal(about.place or _folder(about))
    if not about.base:
        yield code(f"from adapterkit import Adapter\n\nadapter = Adapter.load({place})")
        return
    yield code(
        f"from adapterkit import Base\n\nbase = Base({_base(about)})\nadapter = base.load({place})\n"
        'print(base.generate("...", adapter=adapter))'
    )
    yield "The prompt is one user turn of the base's chat template, where it has one, as it was in training."


def _base(about: About) -> str:
    """What stands between the brackets."""
    name = about.base if about.base_id or about.said is None else "path/to/base"
    return literal(name) + (
        f", revision={literal(about.base_revision)}" if about.base_id and about.base_revision else ""
    )


def _folder(about: About) -> str:
    return "." if about.said is None and (about.base_id or not about.base) else FOLDER


def _on_hub(about: About) -> tuple[str, str]:
    """The repository, and the revision as an argument."""
    revision = about.publication.revision
    return about.hub_id, f", revision={literal(revision)}" if about.hub_id and revision else ""


def _vllm(about: About) -> Iterator[str]:
    verdict = about.part("engines").get("vllm")
    rank = about.part("config").get("rank")
    if not isinstance(verdict, dict) or verdict.get("fits") == "no" or not isinstance(rank, int):
        return  # the table of engines says why
    folder, fetched, name = FOLDER, "", about.name or "NAME"
    if about.hub_id:  # vLLM itself fetches the newest version only, whatever is asked for
        folder, revision = about.name, about.publication.revision
        fetched = f"hf download {about.hub_id}"
        fetched += f" --revision {revision} --local-dir {folder}\n" if revision else f" --local-dir {folder}\n"
    if verdict.get("fits") == "yes":
        yield "With vLLM:"
        served = folder
    else:
        yield f"With vLLM, once it is exported ({plain(verdict.get('reason', ''))}):"
        served = f"{folder}-vllm"
        fetched += f"adapterkit export {folder} {served} --to vllm\n"
    base = about.base_id or "BASE"
    if about.base_id and REVISION.fullmatch(about.base_revision):
        base += f" --revision {about.base_revision}"
    pattern = about.part("config").get("rank_pattern")
    ranks = [rank, *(pattern.values() if isinstance(pattern, dict) else ())]  # an export has one rank: the largest
    room = room_in_vllm(max(one for one in ranks if isinstance(one, int)))
    yield code(
        f"{fetched}vllm serve {base} \\\n  --enable-lora --max-lora-rank {room} --lora-modules {name}={served}", "bash"
    )
