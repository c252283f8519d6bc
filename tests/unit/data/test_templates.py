"""Every named template against a rendering written by hand, and what `template_name` may be."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest

from component.config.errors import UserError
from component.data.rows import Message
from component.data.templates import NAMED_TEMPLATES, load_chat_template, template_names
from component.registry import TEMPLATE_NAMES

MESSAGES = (
    Message("system", "Be kind."),
    Message("user", "Hi"),
    Message("assistant", "Hello"),
    Message("user", "More?"),
    Message("assistant", "Yes"),
)
CHATML = (
    "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
    "<|im_start|>user\nMore?<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"
)
MISTRAL = "<s>[INST] Be kind.\n\nHi [/INST] Hello</s>[INST] More? [/INST] Yes</s>"
# name -> (the conversation above, what the prompt for an answer adds to a conversation that ends in a question)
GOLDEN = {
    "default": (
        "<s>System: Be kind.\n\nUser: Hi\nAssistant: Hello</s>\nUser: More?\nAssistant: Yes</s>\n",
        "Assistant:",
    ),
    "alpaca": (
        "<s>Be kind.\n\n### Instruction:\nHi\n\n### Response:\nHello</s>\n\n"
        "### Instruction:\nMore?\n\n### Response:\nYes</s>\n\n",
        "### Response:\n",
    ),
    "chatml": (CHATML, "<|im_start|>assistant\n"),
    "internlm": (
        "<s><|System|>:Be kind.\n<|User|>:Hi\n<|Bot|>:Hello</s>\n<|User|>:More?\n<|Bot|>:Yes</s>\n",
        "<|Bot|>:",
    ),
    "internlm2": ("<s>" + CHATML, "<|im_start|>assistant\n"),
    "qwen": (CHATML, "<|im_start|>assistant\n"),
    "yi": (CHATML, "<|im_start|>assistant\n"),
    "orion": (
        "<s>Human: Be kind.\n\nHi\n\nAssistant: </s>Hello</s>Human: More?\n\nAssistant: </s>Yes</s>",
        "",
    ),
    "deepseek": (
        "<s>Be kind.\n\nUser: Hi\n\nAssistant: Hello</s>User: More?\n\nAssistant: Yes</s>",
        "Assistant:",
    ),
    "chatglm2": (
        "[Round 1]\n\n问：Be kind.\n\nHi\n\n答：Hello</s>\n\n[Round 2]\n\n问：More?\n\n答：Yes</s>\n\n",
        "",
    ),
    "chatglm3": (
        "[gMASK]sop<|system|>\n Be kind.<|user|>\n Hi<|assistant|>\n Hello</s><|user|>\n More?<|assistant|>\n Yes</s>",
        "<|assistant|>",
    ),
    "ziya2": (
        "<s><human>:Be kind.\n\nHi\n<bot>:Hello</s><human>:More?\n<bot>:Yes</s>",
        "<bot>:",
    ),
    "xverse": (
        "Human: Be kind.\n\nHi\n\nAssistant: Hello</s>Human: More?\n\nAssistant: Yes</s>",
        "Assistant:",
    ),
    "minicpm": ("<s><用户>Be kind.\n\nHi<AI>Hello</s><用户>More?<AI>Yes</s>", "<AI>"),
    "minicpm3": (CHATML, "<|im_start|>assistant\n"),
    "zephyr": (
        "<|system|>\nBe kind.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello</s>\n"
        "<|user|>\nMore?</s>\n<|assistant|>\nYes</s>\n",
        "<|assistant|>\n",
    ),
    "mistral": (MISTRAL, ""),
    "mixtral": (MISTRAL, ""),
    "baichuan": (
        "Be kind.<reserved_102>Hi<reserved_103>Hello</s><reserved_102>More?<reserved_103>Yes</s>",
        "<reserved_103>",
    ),
    "baichuan2": (
        "Be kind.<reserved_106>Hi<reserved_107>Hello</s><reserved_106>More?<reserved_107>Yes</s>",
        "<reserved_107>",
    ),
    "vicuna": ("<s>Be kind. USER: Hi ASSISTANT: Hello</s>USER: More? ASSISTANT: Yes</s>", "ASSISTANT:"),
    "llama2": (
        "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST] Hello </s><s>[INST] More? [/INST] Yes </s>",
        "",
    ),
    "llama3": (
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nMore?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nYes<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "gemma": (
        "<s><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n"
        "<start_of_turn>user\nMore?<end_of_turn>\n<start_of_turn>model\nYes<end_of_turn>\n",
        "<start_of_turn>model\n",
    ),
    "phi3": (
        "<|system|>\nBe kind.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello<|end|>\n"
        "<|user|>\nMore?<|end|>\n<|assistant|>\nYes<|end|>\n",
        "<|assistant|>\n",
    ),
    "llama3.1": (
        "<s><|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nMore?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nYes<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "qwen3": (
        CHATML.replace("Yes<|im_end|>", "<think>\n\n</think>\n\nYes<|im_end|>"),
        "<|im_start|>assistant\n",
    ),
    "gemma3": (
        "<s><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello<end_of_turn>\n"
        "<start_of_turn>user\nMore?<end_of_turn>\n<start_of_turn>model\nYes<end_of_turn>\n",
        "<start_of_turn>model\n",
    ),
    "phi4": (
        "<|im_start|>system<|im_sep|>Be kind.<|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|>"
        "<|im_start|>assistant<|im_sep|>Hello<|im_end|><|im_start|>user<|im_sep|>More?<|im_end|>"
        "<|im_start|>assistant<|im_sep|>Yes<|im_end|>",
        "<|im_start|>assistant<|im_sep|>",
    ),
    "deepseek-r1": (
        "<s>Be kind.<｜User｜>Hi<｜Assistant｜>Hello<｜end▁of▁sentence｜>"
        "<｜User｜>More?<｜Assistant｜>Yes<｜end▁of▁sentence｜>",
        "<｜Assistant｜><think>\n",
    ),
}


def tokenizer(*control_tokens: str, eos: str | None = "</s>", chat_template: object = None) -> SimpleNamespace:
    """What choosing a template asks of a tokenizer: its control tokens and its own template."""
    added = {number: SimpleNamespace(content=token) for number, token in enumerate(control_tokens)}
    return SimpleNamespace(added_tokens_decoder=added, eos_token=eos, chat_template=chat_template)


def render(source: str, messages: tuple[Message, ...], *, prompt: bool = False) -> str:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source).render(
        messages=[message.as_template_message() for message in messages],
        add_generation_prompt=prompt,
        bos_token="<s>",
        eos_token="</s>",
    )


def test_every_named_template_has_a_golden_rendering() -> None:
    assert template_names() == TEMPLATE_NAMES == tuple(GOLDEN)
    folder = Path(__file__).parents[3] / "component" / "data" / "chat_templates"
    assert {file.stem for file in folder.iterdir()} == set(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_named_template_renders_as_written_by_hand(name: str) -> None:
    stop = NAMED_TEMPLATES[name]
    template = load_chat_template(name, tokenizer(*([stop] if stop else [])))
    text, prompt = GOLDEN[name]
    assert render(template.source, MESSAGES) == text
    questions = MESSAGES[:-1]
    assert render(template.source, questions, prompt=True) == render(template.source, questions) + prompt
    begun = render(template.source, questions, prompt=True).removesuffix("<think>\n")  # a thought that is not shown
    assert text.startswith(begun.rstrip(" "))
    assert template.stop_tokens == (stop or "</s>",)
    assert template.notices == ()


@pytest.mark.parametrize("name", [name for name, stop in NAMED_TEMPLATES.items() if stop])
def test_stop_token_of_another_family_is_followed_by_eos(name: str) -> None:
    stop = NAMED_TEMPLATES[name]
    template = load_chat_template(name, tokenizer("</s>"))
    golden = GOLDEN[name][0]
    for answer in ("Hello", "Yes"):
        golden = golden.replace(f"{answer}{stop}", f"{answer}{stop}</s>")
    assert render(template.source, MESSAGES) == golden
    assert template.stop_tokens == ("</s>",)
    assert template.notices == (
        f"template_name: {name} ends a turn with {stop!r}, which is no control token of this tokenizer; it is trained "
        "on as text, and the tokenizer's EOS token '</s>' follows it so that generation stops",
    )


def test_default_system_messages() -> None:
    question = (Message("user", "Hi"),)
    for name, beginning in {
        "qwen": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n",
        "vicuna": "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives "
        "helpful, detailed, and polite answers to the user's questions. USER: Hi ",
        "alpaca": "<s>Below is an instruction that describes a task. Write a response that appropriately completes the "
        "request.\n\n### Instruction:\nHi\n\n",
        "llama2": "<s>[INST] Hi [/INST]",
        "chatml": "<|im_start|>user\nHi<|im_end|>\n",
    }.items():
        assert render(load_chat_template(name, tokenizer("<|im_end|>")).source, question) == beginning


def test_own_template_of_the_tokenizer() -> None:
    assert load_chat_template("auto", tokenizer(chat_template="own")).source == "own"
    assert load_chat_template("auto", tokenizer(chat_template={"rag": "a", "default": "b"})).source == "b"


def test_template_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.jinja").write_text("ä", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    template = load_chat_template("mine.jinja", tokenizer())
    assert (template.source, template.origin) == ("ä", str(tmp_path / "mine.jinja"))


@pytest.mark.parametrize(
    "name, words",
    [
        (
            "auto",
            "template_name: got auto, but the tokenizer has no chat template of its own; use the path of a .jinja",
        ),
        ("missing/own.jinja", "template_name: there is no file {cwd}/missing/own.jinja; correct the path, or use the "),
        (
            "nonsense",
            "template_name: there is no template 'nonsense'; use the path of a .jinja file, or one of: default",
        ),
    ],
)
def test_refused_names(name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        load_chat_template(name, tokenizer())
    (message,) = error.value.messages
    assert message.startswith(words.format(cwd=tmp_path))


@pytest.mark.parametrize("name", ["default", "chatml"])
def test_tokenizer_without_eos(name: str) -> None:
    with pytest.raises(UserError, match=f"template_name: {name} ends a turn with"):
        load_chat_template(name, tokenizer(eos=None))
