"""The README says what is: its commands, its tree, its tables, its examples."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from component.config.choices import REPORTERS
from component.config.errors import ConfigError
from component.config.keys import MODES
from component.config.load import load_config
from component.pipeline.benchmark.chat_cases import VARIANTS
from component.planning.why_not_faster import LEAST_GAIN
from component.registry import FORMATS, LOADERS, TASKS


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text(encoding="utf-8")


def blocks(readme: str, opening: str) -> list[str]:
    return re.findall(rf"^```{opening}\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)


def commands(readme: str) -> list[list[str]]:
    """Those of blocks, and those in the last column of the table of speeds."""
    lines = [line for block in blocks(readme, "bash") for line in block.splitlines() if line.strip()]
    in_table = re.findall(r"\| `(benchmark\.py .*)` \|$", readme, flags=re.MULTILINE)
    lines += [f"python script/{command}" for command in in_table]
    return [shlex.split(line, comments=True) for line in lines]


def test_advice_is_silent_below_what_the_page_says(readme: str) -> None:
    assert f"Below {LEAST_GAIN:.0%}".replace("%", " %") + " it is silent" in readme


def test_train_commands_are_valid(readme: str) -> None:
    trained = [words for words in commands(readme) if words[:2] == ["python", "train.py"] and "--schema" not in words]
    assert len(trained) == 4
    for words in trained:
        load_config(words[words.index("--train_args_file") + 1], [word for word in words if re.match(r"\w+=", word)])


def test_script_commands_have_their_options(readme: str, repository: Path) -> None:
    scripts = [words for words in commands(readme) if len(words) > 1 and words[1].startswith("script/")]
    assert len(scripts) == 28
    for interpreter, script, *arguments in scripts:
        assert (repository / script).is_file(), script
        if interpreter == "python":
            suite = [word for word in arguments[:1] if not word.startswith("-")]
            command = [sys.executable, script, *suite, "--help"]
            help_text = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
            for option in (word for word in arguments if word.startswith("--")):
                assert option in help_text, f"{script} {option}"
            names = arguments[arguments.index("--cases") + 1 :] if "--cases" in arguments else []
            assert set(names) <= VARIANTS["full" if "full" in arguments else "chat"].keys()


def test_tree(readme: str, repository: Path) -> None:
    (tree,) = (block for block in blocks(readme, "text") if block.startswith("train.py "))
    folder = repository
    listed = set()
    for line in tree.splitlines():
        name = line.split()[0]
        folder = repository / "component" if line.startswith("  ") else repository
        assert (folder / name).exists(), line
        listed.add(name.rstrip("/") if folder != repository else name)
    packages = {path.name for path in (repository / "component").iterdir() if (path / "__init__.py").is_file()}
    assert packages <= listed


def test_tables(readme: str) -> None:
    rows = dict(re.findall(r"^\| (\w+) \| (.*?) \|$", readme, flags=re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", rows["tasks"])) == set(TASKS.names())
    assert tuple(re.findall(r"`(\w+)`", rows["modes"])) == MODES
    assert set(re.findall(r"`(\w+)`", rows["loaders"])) == set(LOADERS.names())
    assert {name for name in REPORTERS if name in rows["reporters"]} == set(REPORTERS) - {"none"}
    formats = readme.partition("Formats are recognised")[2].partition("\n\n")[0]
    assert [name for name in FORMATS.names() if f"`{name}`" not in formats] == []


def test_mistakes(readme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (config,), (output,) = blocks(readme, "json mistakes"), blocks(readme, "text mistakes")
    monkeypatch.chdir(tmp_path)
    Path("train_args").mkdir()
    Path("train_args/mine.json").write_text(config)
    with pytest.raises(ConfigError) as caught:
        load_config("train_args/mine.json", ["lora_alpah=8"])
    assert str(caught.value) == output.rstrip()


def test_config_example_is_the_shipped_one(readme: str, repository: Path) -> None:
    example = blocks(readme, "json")[0]
    assert example == (repository / "train_args/sft/qlora/llama3-8b.json").read_text()


def test_plugin_example(readme: str, repository: Path, tmp_path: Path) -> None:
    (plugin,) = blocks(readme, "python plugin")
    (tmp_path / "my_components.py").write_text(plugin)
    code = (
        "import sys\nfrom component.config.load import load_config\n"
        "from component.data.formats.interface import load_format\nfrom component.data.rows import Source\n"
        "load_config({'model_name_or_path': 'm', 'train_file': 't', 'output_dir': 'o', 'plugins': sys.argv[1], "
        "'data_format': 'dialog'})\n"
        "row = load_format('dialog').parse({'ask': 'why', 'reply': 'so'}, Source('f', 1))\n"
        "assert [message.content for message in row.messages] == ['why', 'so']\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "my_components.py")]
    subprocess.run(command, cwd=repository, check=True)
