"""Chat templates compiled as transformers compiles them, but rendering to text that knows its origins.

The dialect is that of `transformers.utils.chat_template_utils`: a sandbox with immutable data, `trim_blocks`,
`lstrip_blocks`, loop controls, `{% generation %}`, `tojson` without HTML escapes, `raise_exception`, `strftime_now`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from jinja2 import Template, meta, nodes, pass_eval_context
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from component.data.traced_text import TracedText, join_traced, mark_generated
from component.data.traced_values import write_json, write_text


def compile_template(source: str, *, now: datetime) -> Template:
    """Compile a chat template whose `render` returns `TracedText`.

    Args:
        source: the Jinja text.
        now: what `strftime_now` formats; one moment for the whole run, so that all rows agree.

    Raises:
        jinja2.TemplateSyntaxError: the source is no Jinja template.
    """
    environment = TracingEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlocks, loopcontrols])
    environment.filters["tojson"] = write_json
    environment.filters["string"] = write_text
    environment.filters["indent"] = _indent
    environment.filters["join"] = _join_filter(environment)
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = now.strftime
    return environment.from_string(source)


def find_tested_literals(source: str) -> tuple[frozenset[str], frozenset[str]]:
    """Texts that a template looks for in what it renders: (searched for within a text, compared with a whole text).

    A row that holds none of them is rendered by the same path through the template as any other row of its shape.
    """
    environment = ImmutableSandboxedEnvironment(extensions=[GenerationBlocks, loopcontrols])
    tree = environment.parse(source)
    searched: set[str] = set()
    compared: set[str] = set()
    for compare in tree.find_all(nodes.Compare):
        for operand in compare.ops:
            in_text = operand.op in ("in", "notin") and not isinstance(operand.expr, nodes.Tuple | nodes.List)
            target = searched if in_text else compared
            target.update(_texts((compare.expr, operand.expr)))
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Getattr):
            searched.update(_texts(call.args))
    return frozenset(text for text in searched if text.strip()), frozenset(compared)


def find_variables(source: str) -> frozenset[str]:
    """The variables that a template takes from outside."""
    environment = ImmutableSandboxedEnvironment(extensions=[GenerationBlocks, loopcontrols])
    return frozenset(meta.find_undeclared_variables(environment.parse(source)))


class _TracingCode(CodeGenerator):
    """Compiles `a ~ b` to a call that keeps origins; Jinja's own `str_join` loses them."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        """Write a concatenation as a call; the name is Jinja's."""
        self.write("concat((")
        for operand in node.nodes:
            self.visit(operand, frame)
            self.write(", ")
        self.write("))")


class TracingEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox whose concatenation of output keeps the origin of each character."""

    code_generator_class = _TracingCode

    @staticmethod
    def concat(parts: Iterable[str]) -> str:  # type: ignore[override]
        """Join what a template or macro wrote, with origins."""
        return join_traced("", parts)


class GenerationBlocks(Extension):
    """`{% generation %}...{% endgeneration %}`: the text between is what the model is trained to write."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.CallBlock:
        """The call that marks what stands between the two tags; Jinja calls it at the first."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    @pass_eval_context
    def _mark(self, context: nodes.EvalContext, caller: Callable[[], str]) -> TracedText:
        return mark_generated(caller())


def _join_filter(environment: TracingEnvironment) -> Callable[..., str]:
    def join(value: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
        """Jinja's `join`, with the origins of all parts."""
        items = value if attribute is None else (environment.getitem(item, attribute) for item in value)
        return join_traced(d, items)

    return join


def _indent(s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> TracedText:
    """Jinja's `indent`, with origins."""
    indention = width if isinstance(width, str) else " " * width
    lines = join_traced("", [s, "\n"]).splitlines()  # so that a text without lines has one
    indented = [join_traced("", [indention if line or blank else "", line]) for line in lines[1:]]
    return join_traced("\n", [join_traced("", [indention if first else "", lines[0]]), *indented])


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _texts(expressions: Iterable[nodes.Node]) -> set[str]:
    """The string constants among `expressions`, those in a literal list or tuple included."""
    constants = (constant for node in expressions for constant in [node, *node.find_all(nodes.Const)])
    return {node.value for node in constants if isinstance(node, nodes.Const) and isinstance(node.value, str)}
