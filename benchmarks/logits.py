"""Peak memory of training beyond the model itself at a vocabulary of 128,256, where logits are nearly all of it.

The same rows, every token trained, through ``base.train`` and through transformers' Trainer with PEFT, each in its own process.
"""

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from figures import report

BASE = Path(__file__).parent.parent / "examples" / "base"
VOCABULARY, TOKENS, BATCH, STEPS = 128_256, 256, 8, 2


def model() -> object:
    """Two thin layers and a large head."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
    )
    return LlamaForCausalLM(config)


def rows() -> list[dict[str, str]]:
    text = " ".join(f"and then there were {number} green bottles on the wall" for number in range(40))
    return [{"text": f"{number} {text}"} for number in range(BATCH)]


def ours() -> Callable[[], None]:
    from transformers import AutoTokenizer

    from adapterkit import Base

    base = Base(model(), tokenizer=AutoTokenizer.from_pretrained(BASE))
    options = {
        "batch_size": BATCH,
        "max_steps": STEPS,
        "max_length": TOKENS,
        "rank": 8,
        "target_modules": ["q_proj", "v_proj"],
    }
    return lambda: base.train(rows(), **options)


def peers() -> Callable[[], None]:
    import peft
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(BASE)
    ids = [tokenizer(row["text"])["input_ids"][:TOKENS] for row in rows()]
    wrapped = peft.get_peft_model(
        model(), peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    )
    arguments = TrainingArguments(
        tempfile.mkdtemp(),
        per_device_train_batch_size=BATCH,
        max_steps=STEPS,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    data = [{"input_ids": one, "labels": one} for one in ids]
    return Trainer(wrapped, arguments, train_dataset=data, data_collator=DataCollatorForSeq2Seq(tokenizer)).train


def child(which: str) -> None:
    """Print how much higher the peak of the process is after training than before."""
    train = {"ours": ours, "peers": peers}[which]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    train()
    print(json.dumps((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024))


def main() -> None:
    def peak(which: str) -> int:
        done = subprocess.run([sys.executable, __file__, which], check=True, stdout=subprocess.PIPE, text=True)
        return int(done.stdout.splitlines()[-1])

    mine, theirs = peak("ours"), peak("peers")
    report(
        f"peak memory of training beyond the model, {BATCH} × {TOKENS} tokens, vocabulary {VOCABULARY:,}",
        f"{mine / 2**30:.2f} GiB",
        f"{theirs / 2**30:.2f} GiB (Trainer + PEFT)",
        f"{mine / theirs:.2f}",
        "at most 0.5",
        met=mine <= theirs / 2,
    )


if __name__ == "__main__":
    child(sys.argv[1]) if len(sys.argv) > 1 else main()
