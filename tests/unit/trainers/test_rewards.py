"""Rewards: what each named one gives for which completion, and what is said of functions that fail."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from component.config.errors import UserError
from component.config.load import load_config
from component.config.schema import GRPOSection
from component.data.rows import Prepared, Source
from component.trainers.rewards.answers import last_number
from component.trainers.rewards.interface import Completion, RewardError
from component.trainers.rewards.load import check_rewards, completion_of, load_rewards
from component.trainers.rewards.reward import Reward

SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


def section(*names: str, **values: Any) -> GRPOSection:
    settings = {"model_name_or_path": "m", "train_file": "d", "output_dir": "o", "task_type": "grpo"}
    return load_config({**settings, "reward_functions": list(names), **values}).grpo


def one(text: str, num_tokens: int = 3, *, prompt: Any = "p", line: int = 1, **columns: Any) -> Completion:
    return Completion(text, tuple(range(num_tokens)), prompt, columns, Source("rows.jsonl", line))


def score(name: str, completion: Completion, **arguments: Any) -> float | None:
    (reward,) = load_rewards(section(name, reward_arguments={name: arguments} if arguments else {}))
    (value,) = reward.score([completion])
    return value


@pytest.mark.parametrize(
    ("name", "arguments", "completion", "expected"),
    [
        ("exact_match", {}, one(" Paris\n", solution="Paris"), 1.0),
        ("exact_match", {}, one("paris", solution="Paris"), 0.0),
        ("exact_match", {"ignore_case": True, "column": "city"}, one("paris", city="Paris"), 1.0),
        ("exact_match", {}, one("42", solution=42), 1.0),
        ("numeric_answer", {}, one("It is 1,234.50, I think.", solution="#### 1234.5"), 1.0),
        ("numeric_answer", {}, one("3 + 4 = 8", solution=7), 0.0),
        ("numeric_answer", {}, one("\\boxed{-3}", solution=-3), 1.0),
        ("numeric_answer", {}, one("nothing", solution=0), 0.0),
        ("numeric_answer", {"tolerance": 0.01}, one("about 3.14", solution=3.1416), 1.0),
        ("format", {}, one("<think>so\nit is</think>\n\n4"), 1.0),
        ("format", {}, one("<think>so</think>"), 0.0),
        ("format", {}, one("4"), 0.0),
        ("format", {}, one("<think>a</think>b<think>c</think>d"), 0.0),
        ("format", {"pattern": "[a-z]+!"}, one("hello!"), 1.0),
        ("format", {"pattern": "[a-z]+!"}, one("hello! you"), 0.0),
        ("length", {"min_tokens": 4, "max_tokens": 8}, one("", 6), 1.0),
        ("length", {"min_tokens": 4, "max_tokens": 8}, one("", 2), 0.5),
        ("length", {"min_tokens": 4, "max_tokens": 8}, one("", 32), 0.25),
        ("length", {"min_tokens": 4, "max_tokens": 8}, one("", 0), 0.0),
        ("json_schema", {"schema": SCHEMA}, one('{"age": 3}'), 1.0),
        ("json_schema", {"schema": SCHEMA}, one('```json\n{"age": 3}\n```'), 1.0),
        ("json_schema", {"schema": SCHEMA}, one('{"age": "3"}'), 0.0),
        ("json_schema", {"schema": SCHEMA}, one('{"age": NaN}'), 0.0),
        ("json_schema", {"schema": SCHEMA}, one('Here: {"age": 3}'), 0.0),
        ("json_schema", {}, one("[1]", schema='{"type": "array"}'), 1.0),
        ("json_schema", {"schema_column": "form"}, one("1", form={"type": "array"}), 0.0),
        ("code_fence", {}, one("So:\n```\nx = 1\n```\n"), 1.0),
        ("code_fence", {"language": "python"}, one("```Python\nx = 1\n```"), 1.0),
        ("code_fence", {"language": "python"}, one("```js\nx = 1\n```"), 0.0),
        ("code_fence", {}, one("```\nx = 1\n"), 0.0),
        ("code_fence", {}, one("```\n\n```"), 0.0),
        ("code_fence", {}, one("```\na\n```\n```\nb\n```"), 0.0),
    ],
)  # fmt: skip
def test_named_rewards(name: str, arguments: dict[str, Any], completion: Completion, expected: float) -> None:
    assert score(name, completion, **arguments) == expected


@pytest.mark.parametrize(
    ("text", "number"),
    [("", None), ("1", 1), ("-2.5e3 m", -2500), ("10-3", 3), ("1,23", 23), ("v2", None), ("$.5", 0.5), ("7.", 7)],
)
def test_the_last_number(text: str, number: float | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("exact_match", {"colum": "a"}, "exact_match has no argument colum; use column, ignore_case"),
        ("format", {"column": "a"}, "format has no argument column; use pattern"),
        ("format", {"pattern": "("}, "format: pattern is no regular expression: missing ), unterminated subpattern"),
        ("length", {"min_tokens": 9, "max_tokens": 3}, "length: min_tokens 9 and max_tokens 3 are no range"),
        ("length", {"max_tokens": "many"}, 'length: expected an integer, got "many"'),
        ("numeric_answer", {"tolerance": -1}, "numeric_answer: tolerance is -1; use 0 or more"),
        ("json_schema", {"schema": {"type": "thing"}}, "json_schema: is no JSON Schema: 'thing' is not valid under"),
    ],
)
def test_arguments_that_do_not_fit(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        load_rewards(section(name, reward_arguments={name: arguments}))
    assert str(raised.value).startswith(f"reward_arguments: {message}")


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("exact_match", {"answer": "4"}, "exact_match reads the column solution, which rows.jsonl:2 does not have; "),
        (
            "numeric_answer",
            {"solution": "four"},
            "numeric_answer: rows.jsonl:2: column solution holds no number: 'four'",
        ),
        ("json_schema", {"schema": "{"}, "json_schema: rows.jsonl:2: column schema: Expecting property name"),
        ("json_schema", {"schema": 3}, "json_schema: rows.jsonl:2: column schema: is no JSON Schema: a schema is a"),
    ],
)
def test_columns_are_checked_on_every_row(name: str, columns: dict[str, Any], message: str) -> None:
    good = {"exact_match": "4", "numeric_answer": "4", "json_schema": None}[name]
    rows = [prompt(1, **({"solution": good} if good else {"schema": {}})), prompt(2, **columns)]
    with pytest.raises(RewardError) as raised:
        check_rewards(load_rewards(section(name)), rows)
    assert str(raised.value).startswith(f"reward_functions: {message}")


def prompt(line: int, **columns: Any) -> Prepared:
    return Prepared((1, 2), (), Source("rows.jsonl", line), columns={"prompt": "p", **columns})


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`own(body)`: the reward `rewards.py:mine` with that body."""
    monkeypatch.chdir(tmp_path)

    def load(text: str) -> Reward:
        Path("rewards.py").write_text(text, encoding="utf-8")
        (reward,) = load_rewards(section("rewards.py:mine"))
        return reward

    return load


def test_a_function_gets_what_it_asks_for(own: Any) -> None:
    reward = own(
        "def mine(completions, solution, *, prompts, completion_ids):\n"
        "    assert prompts == ['p', [{'role': 'user', 'content': 'q'}]] and completion_ids == [[0, 1, 2], [0]]\n"
        "    assert completions == ['a', [{'role': 'assistant', 'content': 'b'}]]\n"
        "    return [len(text) for text in solution]\n"
    )
    chat = one("b", 1, prompt=[{"role": "user", "content": "q"}], solution="four")
    assert reward.score([one("a", solution="one", other=1), chat]) == [3.0, 4.0]


def test_every_column_with_keyword_arguments(own: Any) -> None:
    reward = own("import numpy\ndef mine(**given):\n    return numpy.array([len(given)] * len(given['prompts']))\n")
    assert reward.score([one("a", solution="one", other=1)]) == [5.0]


def test_coroutines_and_absent_rewards(own: Any) -> None:
    assert own("async def mine(completions):\n    return [None, True]\n").score([one("a"), one("b")]) == [None, 1.0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise KeyError('x')", "rows.jsonl:1 and 1 more rows: raised KeyError in line 2: 'x'; mend the function"),
        ("return [1.0]", "rows.jsonl:1 and 1 more rows: returned 1 rewards for 2 completions; return one for each"),
        ("return 1.0", "rows.jsonl:1 and 1 more rows: returned 1.0, not a list of numbers; mend the function"),
        ("return 'ab'", "rows.jsonl:1 and 1 more rows: returned 'ab', not a list of numbers; mend the function"),
        ("return [1, 'b']", "rows.jsonl:2: returned 'b' for a completion, which is no finite number"),
        ("return [1, float('nan')]", "rows.jsonl:2: returned nan for a completion, which is no finite number"),
        ("return (1 / 0 for _ in completions)", "rows.jsonl:1 and 1 more rows: raised ZeroDivisionError in line 2: "),
        ("raise SystemExit(0)", "rows.jsonl:1 and 1 more rows: raised SystemExit in line 2: 0; mend the function"),
        ("return {1.0, 2.0}", "rows.jsonl:1 and 1 more rows: returned {1.0, 2.0}, not a list of numbers"),
        ("return [1, 1e39]", "rows.jsonl:2: returned 1e+39 for a completion, which is no finite number below 1e+12"),
        ("return [1, 10**400]", "rows.jsonl:2: returned 1000000000"),
        ("import torch; return torch.ones(2, 2)", "rows.jsonl:1: returned tensor([1., 1.]) for a completion"),
        ("raise ValueError('a\\nb')", "rows.jsonl:1 and 1 more rows: raised ValueError in line 2: a b; mend"),
        ("return [1, -float('inf')]", "rows.jsonl:2: returned -inf for a completion, which is no finite number"),
    ],
)
def test_functions_that_fail(body: str, message: str, own: Any) -> None:
    with pytest.raises(RewardError) as raised:
        own(f"def mine(completions):\n    {body}\n").score([one("a"), one("b", line=2)])
    assert str(raised.value).startswith(f"reward_functions: rewards.py:mine: {message}")
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "rewards.py has no function mine; correct the name"),
        ("x = (", "rewards.py:1: SyntaxError: '(' was never closed"),
        ("import nothing_like_it", "rewards.py:1: ModuleNotFoundError: No module named 'nothing_like_it'"),
    ],
)
def test_files_that_cannot_be_used(text: str, message: str, own: Any) -> None:
    with pytest.raises(UserError) as raised:
        own(text)
    assert message in str(raised.value)


def test_a_file_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"reward_functions: no such file: .*rewards.py; correct the path"):
        load_rewards(section("rewards.py:mine"))


def test_a_parameter_that_no_column_fills(own: Any) -> None:
    with pytest.raises(RewardError) as raised:
        check_rewards([own("def mine(completions, answer, level=1):\n    return [0]\n")], [prompt(7, solution="4")])
    assert str(raised.value) == (
        "reward_functions: rewards.py:mine wants 'answer', which rows.jsonl:7 does not have (it has solution); "
        "add the column, or give the parameter a default"
    )


def test_each_is_tried_once_before_training(own: Any) -> None:
    with pytest.raises(RewardError, match="raised ZeroDivisionError in line 2"):
        check_rewards(
            [own("def mine(completions):\n    return [1 / len(text) for text in completions]\n")], [prompt(1)]
        )


def test_a_completion_has_the_form_of_its_prompt() -> None:
    messages = [{"role": "user", "content": "q"}]
    text = completion_of(prompt(1, solution="4"), text="a", token_ids=[5])
    chat = completion_of(Prepared((1,), (), Source("f", 1), columns={"prompt": messages}), text="a", token_ids=[5])
    assert (text.turns, text.prompt, text.columns) == ("a", "p", {"solution": "4"})
    assert (chat.turns, chat.prompt) == ([{"role": "assistant", "content": "a"}], messages)
    assert math.isclose(sum(chat.token_ids), 5)


def test_what_a_reward_does_to_its_arguments_is_not_seen_by_the_next(own: Any) -> None:
    evil = own(
        "def mine(prompts, tags):\n"
        "    for prompt, tag in zip(prompts, tags):\n"
        "        prompt[0]['content'] = 'EVIL'\n"
        "        tag.append('EVIL')\n"
        "    return [0] * len(tags)\n"
    )
    completion = one("a", prompt=[{"role": "user", "content": "q"}], tags=["good"])
    evil.score([completion])
    assert (completion.prompt, completion.columns["tags"]) == ([{"role": "user", "content": "q"}], ["good"])


def test_a_column_cannot_take_the_place_of_what_is_sampled(own: Any) -> None:
    reward = own("def mine(completions):\n    return [len(text) for text in completions]\n")
    with pytest.raises(RewardError, match="is given the completions of sampling, and rows.jsonl:1 has such a column"):
        check_rewards([reward], [prompt(1, completions="COLUMN")])
    every = own("def mine(**given):\n    return [len(text) for text in given['completions']]\n")
    assert every.score([one("abc", completions="COLUMN")]) == [3.0]


def test_an_edited_file_is_executed_again(own: Any) -> None:
    assert own("def mine(completions):\n    return [1]\n").score([one("a")]) == [1.0]
    assert own("def mine(completions):\n    return [2]\n").score([one("a")]) == [2.0]


def test_a_callable_without_a_signature(own: Any) -> None:
    with pytest.raises(RewardError, match="mine has no signature that says what it wants; write a function of your"):
        check_rewards([own("mine = max\n")], [prompt(1)])


@pytest.mark.parametrize("reference", ["#/definitions/x", "https://example.org/schema.json"])
def test_a_schema_that_refers_to_nothing(reference: str) -> None:
    with pytest.raises(UserError, match="leads to no place in the schema; mend it"):
        load_rewards(section("json_schema", reward_arguments={"json_schema": {"schema": {"$ref": reference}}}))


def test_a_schema_that_refers_to_itself() -> None:
    schema = {"$defs": {"age": {"type": "integer"}}, "properties": {"age": {"$ref": "#/$defs/age"}}}
    assert score("json_schema", one('{"age": 1}'), schema=schema) == 1.0
    assert score("json_schema", one('{"age": "1"}'), schema=schema) == 0.0
    assert score("json_schema", one("[" * 5000 + "]" * 5000), schema={"$ref": "#"}) == 0.0
