"""`train.py --check` and `--schema` as a user runs them: exit codes, streams, and what is not imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("torch", "transformers", "numpy", "peft", "trl", "datasets", "accelerate", "huggingface_hub", "matplotlib",
         "rich", "bitsandbytes", "unsloth")  # fmt: skip


def train(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ROOT / "train.py"), *arguments], capture_output=True, text=True, cwd=cwd)


def test_a_valid_config_whose_model_and_data_do_not_exist(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "model_name_or_path: /no/such/model\ntrain_file: no/such/data.jsonl\noptim: adamw_hf\nbeta: 0.1\n",
        encoding="utf-8",
    )
    result = train("--train_args_file", "run.yaml", "--check", "seed=3", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "run.yaml:3:8: optim: adamw_hf is an old name, read as adamw_torch; write adamw_torch",
        "run.yaml:4:1: beta: ignored; task_type sft does not read it, only dpo, orpo, cpo, kto, grpo",
        "run.yaml: valid; sft, qlora, output to output/run",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"], "a check writes nothing"


def test_a_config_with_problems(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"lora_rnak": 8,\n "fp16": true}', encoding="utf-8")
    result = train("--train_args_file", "run.json", "bf16=true", "--check", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        "run.json:1:1: model_name_or_path: missing; set it, for example Qwen/Qwen2.5-7B-Instruct",
        "run.json:1:1: train_file: missing; set it, for example data/dummy_data.jsonl",
        "run.json:1:2: lora_rnak: unknown key; did you mean lora_rank?",
        "command line: bf16: fp16 and bf16 are both true; keep one of them, or neither for auto",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--check"], "--train_args_file is missing"),
        (["--train_args_file", "gone.json", "--check"], "gone.json: no such file: "),
        (["--train_args_file", ".", "--check"], ".: . is not a train_args file by its name; "),
        (["--check", "--schema"], "not allowed with"),
        (["--train_args_file", "a.json", "--check", "--lora_rank=8"], "--lora_rank=8; write it as lora_rank=8"),
    ],
)
def test_misuse_is_exit_code_2_without_a_traceback(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = train(*arguments, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr and "Traceback" not in result.stderr


def test_a_check_imports_nothing_heavy(tmp_path: Path) -> None:
    """That is what keeps it under a second."""
    (tmp_path / "run.json").write_text(
        '{"model_name_or_path": "m", "train_file": "d", "run_name": "${seed}x", "use_unsloth": true,\n'
        ' "extra_training_args": {"ddp_bucket_cap_mb": 5}}',
        encoding="utf-8",
    )
    program = f"""
import runpy, sys
sys.path.insert(0, {str(ROOT)!r})
sys.argv = ["train.py", "--train_args_file", "run.json", "--check"]
try:
    runpy.run_path({str(ROOT / "train.py")!r}, run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "[]"


def test_the_schema_is_printed(tmp_path: Path) -> None:
    result = train("--schema", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["properties"]["lora_rank"]["default"] == 64
