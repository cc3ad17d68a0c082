"""Tokenizers of every kind that matters here, built in memory."""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizer, PreTrainedTokenizerFast

from adapterkit.contracts import Conversation, Message

BASE = Path(__file__).parents[1] / "examples" / "base"
CORPUS = ["the model answers the question of the user", "which card did you order?", "I ordered a new card today."] * 9

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{{ m['content'] | trim }}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# As Qwen3: thoughts before the last question are dropped, and a last answer without thoughts gets empty ones
QWEN3 = """{%- set ns = namespace(query=0) -%}
{%- for m in messages -%}{%- if m['role'] == 'user' -%}{%- set ns.query = loop.index0 -%}{%- endif -%}{%- endfor -%}
{%- for m in messages -%}
{%- if m['role'] != 'assistant' -%}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}
{%- else -%}
{%- set answer = m['content'].split('</think>')[-1].lstrip('\\n') -%}
{%- set before = m['content'].split('</think>')[0] if '</think>' in m['content'] else '' -%}
{%- set thought = before.split('<think>')[-1].strip() -%}
{{ '<|im_start|>assistant\\n' }}
{%- if loop.index0 > ns.query and (loop.last or thought) -%}
{{ '<think>\\n' + thought + '\\n</think>\\n\\n' }}
{%- endif -%}
{{ answer + '<|im_end|>\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"""
MISTRAL = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
    "{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + (system + '\n\n' if loop.first and system else '') + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
# As newer Mistral: the system speaks in the last question, so earlier prompts are not beginnings of the whole
SYSTEM_LAST = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% set ns = namespace(query=0) %}"
    "{% for m in turns %}{% if m['role'] == 'user' %}{% set ns.query = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in turns %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + (system + '\n' if loop.index0 == ns.query and system else '') + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
# As GLM-4: nothing closes a turn; the next one's header does
UNCLOSED = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
# As DeepSeek-R1: the generation prompt begins to think, and training does not write thoughts
THINKING_PROMPT = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>' + m['content'] }}"
    "{% else %}{{ '<|assistant|>' + m['content'].split('</think>')[-1] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|><think>\n' }}{% endif %}"
)
# As Qwen2.5: tools in the system's turn, calls as JSON between marks, answers of tools in a turn of the user
TOOLS_CHATML = """{%- if tools %}{{ '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif %}{{ '# Tools\\n<tools>' }}
{%- for tool in tools %}{{ '\\n' }}{{ tool | tojson }}{% endfor %}{{ '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}{{ '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{% endif %}
{%- for m in messages %}
{%- if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls) %}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- elif m.role == 'assistant' %}{{ '<|im_start|>assistant' }}
{%- if m.content %}{{ '\\n' + m.content }}{% endif %}
{%- for call in m.tool_calls %}{% set call = call.function if call.function is defined else call %}
{{- '\\n<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}{{ call.arguments | tojson }}{{ '}\\n</tool_call>' }}
{%- endfor %}{{ '<|im_end|>\\n' }}
{%- elif m.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
{{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}
{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
# As Llama 3.1: tools in the first question, one call a turn, and what a tool answers as JSON
TOOLS_LLAMA3 = """{{- bos_token }}{%- set ns = namespace(told=tools is not defined or not tools) %}
{%- for m in messages %}
{%- if m.role == 'user' and not ns.told %}{% set ns.told = true %}
{{- '<|start_header_id|>user<|end_header_id|>\\n\\nHere are some functions.\\n\\n' }}
{%- for tool in tools %}{{ tool | tojson(indent=4) }}{{ '\\n\\n' }}{% endfor %}{{ m.content | trim + '<|eot_id|>' }}
{%- elif m.tool_calls %}
{%- if m.tool_calls | length != 1 %}{{ raise_exception('This model only supports single tool-calls at once!') }}{% endif %}
{%- set call = m.tool_calls[0].function %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{{- '{"name": "' + call.name + '", "parameters": ' }}{{ call.arguments | tojson }}{{ '}<|eot_id|>' }}
{%- elif m.role == 'tool' %}{{ '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}{{ m.content | tojson }}{{ '<|eot_id|>' }}
{%- else %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""
# As DeepSeek: arguments are text already, and a call ends in special tokens of its own
TOOLS_AS_TEXT = """{{- bos_token }}{% for tool in tools or [] %}{{ tool | tojson + '\\n' }}{% endfor %}
{%- for m in messages %}
{%- if m.role == 'user' %}{{ '<|user|>' + m.content }}
{%- elif m.role == 'tool' %}{{ '<|output|>' + m.content }}
{%- elif m.tool_calls %}{{ '<|assistant|>' + m.content }}{% for call in m.tool_calls %}
{{- '<|call|>' + call.function.name + '\\n' + call.function.arguments + '<|end_call|>' }}{% endfor %}{{ eos_token }}
{%- else %}{{ '<|assistant|>' + m.content + eos_token }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""


def turns(*contents, system=None, train=True):
    """A conversation that alternates, its answers trained."""
    first = [Message("system", system)] if system else []
    rest = [Message("assistant" if i % 2 else "user", c, bool(i % 2) and train) for i, c in enumerate(contents)]
    return Conversation((*first, *rest))


def example_tokenizer(template=None, special=(), **tokens):
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    if tokens:
        tokenizer.add_special_tokens(tokens)
    tokenizer.chat_template = template or tokenizer.chat_template
    return tokenizer


def gpt2_like():
    """Byte-level, nothing before a text, no template."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    # runs of whitespace are tokens, so that a prompt's last space may join the line break behind it
    corpus = [*CORPUS, "a \n b", "a \n  b", "a\n\nb"] * 3
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    core.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|endoftext|>", bos_token="<|endoftext|>")


def sentencepiece_like(template=None):
    """Metaspace: a text begins with a space that is not there; the tokenizer puts <s> before it."""
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=["<unk>", "<s>", "</s>"])
    core.train_from_iterator([*CORPUS, "[INST] a [/INST] b"], trainer)
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=template
    )


class SlowTokenizer(PreTrainedTokenizer):
    """One token for each character, and no offsets."""

    vocab_size = 0x3000

    def __init__(self, **kwargs):
        super().__init__(bos_token="<s>", eos_token="</s>", **kwargs)

    def get_vocab(self):
        return {chr(i): i for i in range(self.vocab_size)} | self.added_tokens_encoder

    def _tokenize(self, text):
        return list(text)

    def _convert_token_to_id(self, token):
        return ord(token)

    def _convert_id_to_token(self, index):
        return chr(index)

    def convert_tokens_to_string(self, tokens):
        return "".join(tokens)


LLAMA3_TOKENS = {
    "special": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "bos_token": "<|begin_of_text|>",
    "eos_token": "<|end_of_text|>",
}
TOOL_TOKENIZERS = {
    "chatml": lambda: example_tokenizer(TOOLS_CHATML),
    "llama3": lambda: example_tokenizer(TOOLS_LLAMA3, **LLAMA3_TOKENS),
    "as-text": lambda: example_tokenizer(
        TOOLS_AS_TEXT, ("<|user|>", "<|assistant|>", "<|output|>", "<|call|>", "<|end_call|>"), bos_token="<s>"
    ),
}
CHAT_TOKENIZERS = {
    "base": example_tokenizer,
    "chatml": lambda: example_tokenizer(CHATML),
    "llama3": lambda: example_tokenizer(
        LLAMA3,
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
    ),
    "qwen3": lambda: example_tokenizer(QWEN3),
    "mistral": lambda: sentencepiece_like(MISTRAL),
    "mistral-bytes": lambda: example_tokenizer(MISTRAL, bos_token="<s>", eos_token="</s>"),
    "system-last": lambda: sentencepiece_like(SYSTEM_LAST),
    "unclosed": lambda: example_tokenizer(UNCLOSED, ("<|user|>", "<|assistant|>", "<|system|>")),
    "thinking-prompt": lambda: example_tokenizer(THINKING_PROMPT, ("<|user|>", "<|assistant|>"), bos_token="<s>"),
    "slow": lambda: SlowTokenizer(chat_template=MISTRAL),
    "gpt2-plain": gpt2_like,
    "sentencepiece-plain": sentencepiece_like,
}
