"""PyYAML's syntax errors in the words of someone who edits a config: where, what is wrong, what to do."""

from __future__ import annotations

import re

import yaml

from component.config.nodes import excerpt

_LONG_ESCAPE = re.compile(r"\\U(?!000[0-9a-fA-F]|0010)")
_AT_CONTEXT = "context"
_AT_PROBLEM = "problem"

# A pattern of PyYAML's context and message, the mark that shows the fault, what is wrong, what to do.
# The first that matches counts; {0} is the first group of the pattern.
_EXPLANATIONS = tuple(
    (re.compile(pattern, re.DOTALL), mark, what, fix)
    for pattern, mark, what, fix in (
        (r"found character '\\t' that cannot", _AT_PROBLEM, "a tab where YAML takes only spaces", "use spaces"),
        (
            r"found character ['\"](.+)['\"] that cannot",
            _AT_PROBLEM,
            "a value cannot begin with {0}",
            "put the text in double quotes",
        ),
        (
            r"quoted scalar.*(?:unexpected end of stream|unexpected document separator)",
            _AT_CONTEXT,
            "the quote is never closed",
            "close it",
        ),
        (
            r"flow (?:sequence|mapping).*<(?:stream end|document start|document end)>",
            _AT_CONTEXT,
            "the bracket is never closed",
            "close it",
        ),
        (
            r"flow (?:sequence|mapping).*expected (',' or '[]}]')",
            _AT_PROBLEM,
            "expected {0} here",
            "put a comma between two entries and close the bracket",
        ),
        (
            r"mapping values are not allowed",
            _AT_PROBLEM,
            "a second colon, or a line that is indented too far",
            "put text that holds a colon and a space in double quotes, or mend the indentation",
        ),
        (
            r"found unknown escape character",
            _AT_PROBLEM,
            "unknown escape in double quotes",
            r"write \\ for a backslash, or use single quotes",
        ),
        (
            r"escape sequence of \d+ hexa",
            _AT_PROBLEM,
            "an escape without its hexadecimal digits",
            r"write \\ for a backslash, or use single quotes",
        ),
        (
            r"scanning an? (?:alias|anchor)",
            _AT_CONTEXT,
            "text that begins with * or & is an alias or anchor in YAML",
            "put the text in double quotes",
        ),
        (
            r"scanning a block scalar",
            _AT_CONTEXT,
            "text that begins with | or > is a block of lines in YAML",
            "put the text in double quotes, or begin the block on the next line",
        ),
        (
            r"(?:sequence entries|mapping keys) are not allowed",
            _AT_PROBLEM,
            "a list or a key cannot begin here",
            "begin it on a line of its own",
        ),
        (r"tag", _AT_CONTEXT, "text that begins with ! is a tag in YAML", "put the text in double quotes"),
        (r"could not find expected ':'", _AT_CONTEXT, "a key without a colon", "write `key: value`"),
        (
            r"expected (?:<block end>|'<document start>')",
            _AT_PROBLEM,
            "this does not belong here",
            "check the indentation and the quotes",
        ),
        (
            r"expected the node content",
            _AT_PROBLEM,
            "expected a value here",
            "write one, or put the text in double quotes",
        ),
        (r"incompatible YAML", _AT_PROBLEM, "the file asks for another version of YAML", "remove the %YAML line"),
    )
)


def explain_syntax_error(error: Exception, text: str, position: int) -> tuple[int, str, str]:
    """Say what is wrong in a text that PyYAML could not read.

    Args:
        error: what PyYAML raised.
        text: the whole text.
        position: the index up to which the text had been read, for errors that carry none.

    Returns:
        The index of the fault in the text, what is wrong, and what to do.
    """
    if isinstance(error, yaml.reader.ReaderError):
        code = ord(error.character) if isinstance(error.character, str) else error.character
        return error.position, f"the character U+{code:04X} cannot stand in a YAML file", "remove it"
    if not isinstance(error, yaml.MarkedYAMLError):
        escape = _LONG_ESCAPE.search(text, position)
        return escape.start() if escape else position, "an escape beyond Unicode", "write the character itself"
    message = f"{error.context or ''}: {error.problem or ''}"
    marks = {
        _AT_CONTEXT: error.context_mark or error.problem_mark,
        _AT_PROBLEM: error.problem_mark or error.context_mark,
    }
    for pattern, at, what, fix in _EXPLANATIONS:
        match = pattern.search(message)
        if match:
            mark = marks[at]
            return _index(mark, position), what.format(*match.groups()), fix
    return _index(marks[_AT_PROBLEM], position), excerpt(error.problem or "not YAML", 80), "check the syntax"


def _index(mark: yaml.error.Mark | None, position: int) -> int:
    return position if mark is None else mark.index
