"""The renderer against transformers, over the chat templates of many models and two real tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
from transformers import PreTrainedTokenizerBase

from component.data.render import Renderer
from component.data.rendered import RenderOptions
from component.data.rows import Message, RowError
from component.data.templates import NAMED_TEMPLATES, load_chat_template, template_names
from component.pipeline.template_table import SETTINGS, Setting, template_page

USER, ANSWER = "user", "assistant"
DIALOGUES = {
    "plain": (Message(USER, "What is up?"), Message(ANSWER, "The sky.")),
    "system": (Message("system", "Be brief."), Message(USER, "Why?"), Message(ANSWER, "Because.")),
    "unicode": (Message(USER, "Übersetze 早上好 👩‍🔬"), Message(ANSWER, "Gúten Morgen ☀️")),
    "whitespace": (Message(USER, "\n hi \t"), Message(ANSWER, "  a\n\n  b \n")),
    "reasoning": (
        Message(USER, "2+2?"),
        Message(ANSWER, "Four.", reasoning_content="Two and two."),
        Message(USER, "3+3?"),
        Message(ANSWER, "Six.", reasoning_content="Three and three."),
    ),
    "turns": (
        Message("system", "Be kind."),
        Message(USER, "One"),
        Message(ANSWER, "Uno"),
        Message(USER, "Two"),
        Message(ANSWER, "Dos"),
        Message(USER, "Three"),
        Message(ANSWER, "Tres"),
    ),
}
NUM_TEMPLATES = 54
# These render nothing without tools or without variables of their own; transformers fails on them too.
NEEDS_MORE_THAN_MESSAGES = {
    "CohereForAI-c4ai-command-r-plus-tool_use",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
    "fireworks-ai-llama-3-firefunction-v2",
}
# These need a BOS token, which not every tokenizer has.
NEEDS_BOS = {"meetkai-functionary-medium-v3.1", "meetkai-functionary-medium-v3.2"}
# These end a conversation with the answer itself: refused, unless append_stop_token is set.
WRITES_NO_TERMINATOR = {"Apertus-8B-Instruct", "Apriel-1.6-15b-Thinker-fixed", "GLM-4.6", "llama-cpp-rwkv-world"}


pytestmark = pytest.mark.usefixtures("shared_encoders")


@pytest.fixture(scope="module", params=["llama3", "qwen2.5"])
def tokenizer_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def shared_tokenizer(tokenizer_name: str, real_tokenizer: Callable[[str], Any]) -> PreTrainedTokenizerBase:
    return real_tokenizer(tokenizer_name)


@pytest.fixture(scope="module")
def adoptive_tokenizer(tokenizer_name: str, real_tokenizer: Callable[[str], Any]) -> PreTrainedTokenizerBase:
    """The tokenizer that `renderer_of` gives the EOS token of another family."""
    return real_tokenizer(tokenizer_name)


def template_files(test_assets: Path) -> list[Path]:
    files = sorted((test_assets / "chat_templates").glob("*.jinja"))
    assert len(files) == NUM_TEMPLATES
    return files


def as_dicts(renderer: Renderer, messages: tuple[Message, ...]) -> list[dict]:
    return [renderer.style.write(message) for message in messages]


def check_dialogue(renderer: Renderer, messages: tuple[Message, ...]) -> bool:
    """Compare one dialogue; False where the template refuses it, to transformers too."""
    tokenizer, source = renderer.tokenizer, renderer.template.source
    try:
        reference = tokenizer.apply_chat_template(as_dicts(renderer, messages), chat_template=source, return_dict=False)
    except (jinja2.TemplateError, TypeError):
        with pytest.raises(RowError, match="^refused by the chat template"):
            renderer.render(messages)
        return False
    ids, spans = renderer.encode(messages)
    assert list(ids) == reference
    rendered = renderer.render(messages)
    answers = [index for index, message in enumerate(messages) if message.role == ANSWER]
    assert len(rendered.spans) == len(spans) == len(answers)
    for index, (start, end), (first, last) in zip(answers, rendered.spans, spans, strict=True):
        text = rendered.text[start:end]
        assert messages[index].content.strip() in text
        assert text.rstrip().endswith(renderer.terminators)
        assert not rendered.text[:start].endswith(messages[index].content.strip())
        prompt = prompt_before(renderer, messages[:index])
        if prompt is not None and rendered.text.startswith(prompt) and not has_generation_blocks(source):
            assert start == len(prompt)
        # A tokenizer that does not know the terminator may join its last character with what follows.
        decoded = tokenizer.decode(ids[first:last])
        assert any(terminator in decoded for terminator in renderer.terminators)
        assert tokenizer.decode(ids[:first]) + decoded + tokenizer.decode(ids[last:]) == rendered.text
    return True


def prompt_before(renderer: Renderer, prefix: tuple[Message, ...]) -> str | None:
    try:
        return renderer.tokenizer.apply_chat_template(
            as_dicts(renderer, prefix),
            chat_template=renderer.template.source,
            add_generation_prompt=True,
            tokenize=False,
        )
    except (jinja2.TemplateError, TypeError):
        return None


def has_generation_blocks(source: str) -> bool:
    return "generation %}" in source or "generation -%}" in source


def renderer_of(
    file: Path, tokenizer: PreTrainedTokenizerBase, adoptive_tokenizer: PreTrainedTokenizerBase
) -> Renderer:
    if eos := SETTINGS.get(file.stem, Setting()).eos_token:
        tokenizer = adoptive_tokenizer
        tokenizer.add_special_tokens({"eos_token": eos})
    return Renderer(tokenizer, load_chat_template(str(file), tokenizer))


def test_all_templates(
    test_assets: Path, shared_tokenizer: PreTrainedTokenizerBase, adoptive_tokenizer: PreTrainedTokenizerBase
) -> None:
    proven, refused = set(), {}
    for file in template_files(test_assets):
        renderer = renderer_of(file, shared_tokenizer, adoptive_tokenizer)
        try:
            renderer.render(DIALOGUES["plain"])
        except RowError as error:
            refused[file.stem] = str(error)
            continue
        accepted = [check_dialogue(renderer, messages) for messages in DIALOGUES.values()]
        assert sum(accepted) >= len(DIALOGUES) - 2, file.stem  # some templates take no system message
        proven.add(file.stem)
    failing = {name for name, reason in refused.items() if reason.startswith("refused by the chat template")}
    assert failing == NEEDS_MORE_THAN_MESSAGES | (NEEDS_BOS if shared_tokenizer.bos_token is None else set())
    assert set(refused) - failing == WRITES_NO_TERMINATOR
    assert {refused[name].split(" after")[0] for name in WRITES_NO_TERMINATOR} == {"the template writes no terminator"}
    assert len(proven) == (46 if shared_tokenizer.bos_token else 44)


def test_an_appended_stop_token_serves_where_the_template_writes_none(
    test_assets: Path, shared_tokenizer: PreTrainedTokenizerBase
) -> None:
    eos, eos_id = shared_tokenizer.eos_token, shared_tokenizer.eos_token_id
    for file in template_files(test_assets):
        if file.stem not in WRITES_NO_TERMINATOR:
            continue
        template = load_chat_template(str(file), shared_tokenizer)
        renderer = Renderer(shared_tokenizer, template, options=RenderOptions(append_stop_token=True))
        for messages in DIALOGUES.values():
            ids, spans = renderer.encode(messages)
            assert all(ids[end - 1] == eos_id for _, end in spans)
            reference = shared_tokenizer.apply_chat_template(
                as_dicts(renderer, messages), chat_template=renderer.template.source, tokenize=False
            )
            assert renderer.render(messages).text.replace(eos, "") == reference.replace(eos, "")


def test_generation_blocks_give_transformers_mask(test_assets: Path, shared_tokenizer: PreTrainedTokenizerBase) -> None:
    files = [file for file in template_files(test_assets) if has_generation_blocks(file.read_text(encoding="utf-8"))]
    assert len(files) == 4
    for file in files:
        renderer = Renderer(shared_tokenizer, load_chat_template(str(file), shared_tokenizer))
        for messages in DIALOGUES.values():
            reference = shared_tokenizer.apply_chat_template(
                as_dicts(renderer, messages),
                chat_template=renderer.template.source,
                return_dict=True,
                return_assistant_tokens_mask=True,
            )
            ids, spans = renderer.encode(messages)
            mask = [int(any(start <= token < end for start, end in spans)) for token in range(len(ids))]
            assert (list(ids), mask) == (reference["input_ids"], reference["assistant_masks"])


#: Named templates whose official text is at hand; they render the same characters.
OFFICIAL = {
    "llama3.1": "meta-llama-Llama-3.1-8B-Instruct",
    "qwen3": "Qwen-Qwen3-0.6B",
    "deepseek-r1": "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
    "gemma": "google-gemma-2-2b-it",
    "gemma3": "google-gemma-2-2b-it",
}
THOUGHTS = (
    Message(USER, "2+2?"),
    Message(ANSWER, "<think>\nTwo and two.\n</think>\n\nFour."),
    Message(USER, "3+3?"),
    Message(ANSWER, "<think>\nThree and three.\n</think>\n\nSix."),
)


@pytest.mark.parametrize("name", OFFICIAL)
def test_named_templates_are_the_official_ones(
    name: str, test_assets: Path, shared_tokenizer: PreTrainedTokenizerBase
) -> None:
    official = (test_assets / "chat_templates" / f"{OFFICIAL[name]}.jinja").read_text(encoding="utf-8")
    stop = NAMED_TEMPLATES[name]
    knowing = SimpleNamespace(added_tokens_decoder={0: SimpleNamespace(content=stop)}, eos_token=stop)
    ours = load_chat_template(name, knowing).source
    takes_system = "gemma" not in name  # Gemma 2 refuses it
    dialogues = [messages for messages in DIALOGUES.values() if takes_system or messages[0].role != "system"]
    for messages in [*dialogues, THOUGHTS]:
        for shown, prompt in ((messages, False), (messages[:-1], True)):
            ours_text, official_text = (
                shared_tokenizer.apply_chat_template(
                    [message.as_template_message() for message in shown],
                    chat_template=source,
                    tokenize=False,
                    add_generation_prompt=prompt,
                    bos_token="<s>",
                )
                for source in (ours, official)
            )
            assert ours_text == official_text


@pytest.mark.parametrize("name", template_names())
def test_named_templates(name: str, shared_tokenizer: PreTrainedTokenizerBase) -> None:
    renderer = Renderer(shared_tokenizer, load_chat_template(name, shared_tokenizer))
    assert all(check_dialogue(renderer, messages) for messages in DIALOGUES.values())


@pytest.mark.parametrize("dialogue", DIALOGUES)
def test_own_template(dialogue: str, shared_tokenizer: PreTrainedTokenizerBase) -> None:
    renderer = Renderer(shared_tokenizer, load_chat_template("auto", shared_tokenizer))
    messages = DIALOGUES[dialogue]
    assert check_dialogue(renderer, messages)
    expected = shared_tokenizer.apply_chat_template(
        as_dicts(renderer, messages[:-1]), add_generation_prompt=True, return_dict=False
    )
    assert renderer.encode_prompt(messages[:-1]) == expected


def test_the_page_on_templates_is_up_to_date(
    test_assets: Path, tokenizer_name: str, shared_tokenizer: PreTrainedTokenizerBase
) -> None:
    """A sample of its rows; `python script/write_docs.py` writes it."""
    page = (Path(__file__).parents[2] / "docs" / "templates.md").read_text(encoding="utf-8").splitlines()
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in page if line.count(" | ") == 4}
    files = template_files(test_assets)
    assert {file.stem for file in files} <= set(rows)
    for file in files[::6]:
        lines = template_page([file], {tokenizer_name: shared_tokenizer}).splitlines()
        one = next(line for line in lines if line.startswith(f"| {file.stem} |"))
        assert one.removeprefix(f"| {file.stem} |").removesuffix(" |") in rows[file.stem]
