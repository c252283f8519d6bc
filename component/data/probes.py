"""Short conversations by which a template is asked how it writes things."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from component.data.rows import Message, RowError
from component.data.traced_text import TracedText

Tools = Sequence[Mapping[str, Any]]
#: Renders messages and tools, with a generation prompt or without.
RenderTrace = Callable[[Sequence[Message], Tools, bool], TracedText]

TURN = (Message("user", "Zq one"), Message("assistant", "Zq two"))
TURNS = (*TURN, Message("user", "Zq three"), Message("assistant", "Zq four"))
TOOL: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": "zq_tool",
        "description": "Zq five.",
        "parameters": {
            "type": "object",
            "properties": {"zq_key": {"type": "string", "description": "Zq six."}},
            "required": ["zq_key"],
        },
    },
}
CALL: Mapping[str, Any] = {
    "type": "function",
    "id": "zqcall001",
    "function": {"name": "zq_tool", "arguments": {"zq_key": "Zq seven"}},
}
CALLING = (
    TURN[0],
    Message("assistant", "", tool_calls=(CALL,)),
    Message("tool", "Zq eight", tool_call_id="zqcall001", name="zq_tool"),
    Message("assistant", "Zq nine"),
)


class Probes:
    """Renders probes, with `TOOL` where the template refuses a plain conversation without tools.

    Args:
        render: renders messages and tools, with a generation prompt or without, to traced text.
    """

    def __init__(self, render: RenderTrace) -> None:
        self._render = render

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> TracedText:
        """Render a probe.

        Raises:
            RowError: the template refuses it.
        """
        return self._render(messages, self.tools, add_generation_prompt)

    @cached_property
    def tools(self) -> Tools:
        """The tools of every probe."""
        for tools in ((), (TOOL,)):
            try:
                self._render(TURN, tools, False)
            except RowError:
                continue
            return tools
        return ()
