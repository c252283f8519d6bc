"""A renderer proves itself on a few short dialogues before any data is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from component.config.errors import UserError
from component.data.probes import CALLING, TOOL, Tools
from component.data.render import Renderer
from component.data.rows import Message, RowError

_DIALOGUES = (
    (
        Message("system", "Answer in one sentence."),
        Message("user", "Which river flows through Cologne?"),
        Message("assistant", "The Rhine flows through Cologne."),
        Message("user", "And through Florence?"),
        Message("assistant", "The Arno flows through Florence."),
    ),
    (Message("user", "Übersetze 早上好 bitte."), Message("assistant", "Guten Morgen ☀️ – 👩‍🔬 naïve")),
    (
        Message("user", "  Two spaces stand before this line.\n"),
        Message("assistant", "\n  def f():\n    return 1  \n"),
        Message("user", "Thanks\t"),
        Message("assistant", " Bye. "),
    ),
)


@dataclass(frozen=True)
class SelfTest:
    """What was proven on the built-in dialogues, and what a user should know; a sentence each."""

    proven: tuple[str, ...]
    notices: tuple[str, ...]


def run_self_test(renderer: Renderer) -> SelfTest:
    """Prove that a renderer's ids, BOS tokens and stop tokens are right.

    Raises:
        UserError: a proof fails; one line that names `template_name` and says what to do.
    """
    name, tools = renderer.template.name, renderer.probe_tools
    notices = [*renderer.template.notices, *(f"template_name: {name} {said}" for said in renderer.style.notices())]
    dialogues: list[Sequence[Message]] = []
    for dialogue in _DIALOGUES:
        messages, refusal = _accepted(renderer, dialogue, tools)
        dialogues.append(messages)
        notices += [refusal] if refusal else []
    if tools:
        notices.append(
            f"template_name: {name} refuses conversations without tools: {_refusal(renderer, dialogues[0], ())}"
        )
    is_equal = renderer.shows_today and not renderer.appends_stop_token
    for messages in dialogues:
        notices += _prove(renderer, messages, tools, is_equal=is_equal)
    notices += _try_calls(renderer, is_equal=is_equal)
    if renderer.appends_stop_token:
        notices.append(
            f"append_stop_token: the tokenizer's EOS token {renderer.tokenizer.eos_token!r} follows each answer; "
            "other programs that use this chat template do not write it"
        )
    if _lacks_bos(renderer, tools):
        notices.append(f"template_name: {name} writes no BOS token; this tokenizer normally begins with one")
    stops = ", ".join(map(repr, renderer.tokenizer.convert_ids_to_tokens(list(renderer.stop_token_ids))))
    equality = ("token ids equal the chat template's own",) if is_equal else ()
    proven = (*equality, "BOS stands where the template writes it", f"answers end in a supervised stop token ({stops})")
    return SelfTest(proven, tuple(dict.fromkeys(notices)))


def _prove(renderer: Renderer, messages: Sequence[Message], tools: Tools, *, is_equal: bool) -> list[str]:
    """Prove one dialogue.

    Returns:
        What a user should know about it.

    Raises:
        UserError: a proof fails.
    """
    name = renderer.template.name
    encoded = renderer.encode(messages, tools)
    ids, spans = encoded
    if is_equal:
        _check_equals_apply_chat_template(renderer, messages, tools, ids)
    _check_bos(renderer, messages, tools, ids)
    _check_stops(renderer, ids, spans)
    notices = [f"template_name: {name}: {notice}" for notice in encoded.notices]
    prompt = renderer.encode_prompt(messages[:-1], tools)
    if list(ids[: len(prompt)]) != prompt:
        notices.append(
            f"template_name: {name} prompts for an answer with other tokens than training shows "
            "before one: it opens a think block there, moves a text, or the tokenizer joins prompt and answer"
        )
    return notices


def _try_calls(renderer: Renderer, *, is_equal: bool) -> list[str]:
    """Prove a dialogue with a tool call where the template has a place for it.

    Returns:
        Why rows with tool calls are refused, if they are.

    Raises:
        UserError: a proof fails.
    """
    if not renderer.takes_calls:
        return []
    tools: Tools = (TOOL,) if renderer.takes_tools else ()
    if refusal := _refusal(renderer, CALLING, tools):
        return [f"template_name: {renderer.template.name} cannot be trained with on tool calls: {refusal}"]
    if is_equal:
        _check_equals_apply_chat_template(renderer, CALLING, tools, renderer.encode(CALLING, tools).input_ids)
    return []


def _refusal(renderer: Renderer, messages: Sequence[Message], tools: Tools) -> str:
    """Why a conversation is refused; empty where it is not."""
    try:
        renderer.render(messages, tools)
    except RowError as error:
        return str(error)
    return ""


def _accepted(renderer: Renderer, dialogue: Sequence[Message], tools: Tools) -> tuple[Sequence[Message], str]:
    """The dialogue, or what is left of it without its system message where the template refuses that; and a notice."""
    refusal = _refusal(renderer, dialogue, tools)
    if not refusal:
        return dialogue, ""
    without_system = [message for message in dialogue if message.role != "system"]
    if error := _refusal(renderer, without_system, tools):
        remedy = "set append_stop_token or " if "terminator" in error else ""
        raise UserError(
            f"template_name: {renderer.template.name} cannot be trained with: {error}; {remedy}use another one"
        )
    return without_system, f"template_name: {renderer.template.name} takes no system message: {refusal}"


def _check_equals_apply_chat_template(
    renderer: Renderer, messages: Sequence[Message], tools: Tools, ids: Sequence[int]
) -> None:
    expected = renderer.tokenizer.apply_chat_template(
        [renderer.style.write(message) for message in renderer.complete(messages)],
        tools=[dict(tool) for tool in tools] or None,
        chat_template=renderer.template.source,
        return_dict=False,
        **renderer.template_kwargs,
    )
    if list(ids) != expected:
        raise UserError(
            f"template_name: token ids of {renderer.template.name} differ from apply_chat_template's; "
            "this is a fault of Lampyris: report it with the name of the model, and use another template until then"
        )


def _check_bos(renderer: Renderer, messages: Sequence[Message], tools: Tools, ids: Sequence[int]) -> None:
    """As many BOS tokens as the template wrote, and not two in a row."""
    bos, bos_id = renderer.tokenizer.bos_token, renderer.tokenizer.bos_token_id
    if bos_id is None:
        return
    written, encoded = renderer.render(messages, tools).text.count(bos), list(ids).count(bos_id)
    if written != encoded:
        raise UserError(
            f"template_name: {renderer.template.name} writes {written} BOS tokens {bos!r} but {encoded} are encoded; "
            "use another template"
        )
    is_doubled = any(pair == (bos_id, bos_id) for pair in zip(ids, ids[1:], strict=False))
    if is_doubled and bos != renderer.tokenizer.eos_token:
        raise UserError(
            f"template_name: {renderer.template.name} writes two BOS tokens {bos!r} in a row; remove one from it"
        )


def _lacks_bos(renderer: Renderer, tools: Tools) -> bool:
    tokenizer = renderer.tokenizer
    if tokenizer.bos_token_id is None:
        return False
    ids = renderer.encode_prompt([Message("user", "a")], tools)
    return tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id] != ids[:1]


def _check_stops(renderer: Renderer, ids: Sequence[int], spans: Sequence[tuple[int, int]]) -> None:
    stops = set(renderer.stop_token_ids)
    if not stops or any(stops.isdisjoint(ids[start:end]) for start, end in spans):
        terminators = " ".join(renderer.terminators)
        raise UserError(
            f"template_name: {renderer.template.name} ends an answer with {terminators!r}, which is no token of this "
            "tokenizer, so generation would not stop; set append_stop_token or use another template"
        )
