"""The seam in Unsloth's dispatch of attention: as it was read in the pinned version, given up where it moves.

Unsloth's module of the seam cannot be imported without a GPU, so the function that calls the kernel is taken out of the
module's file. That packed rows run through it is shown on a GPU: tests/gpu/test_gpu_packing.py.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch
import transformers
from torch.nn.attention.varlen import varlen_attn

from component.models.packed_attention import PackedAttention
from component.models.unsloth_attention import (
    CAPPED,
    CHOICE,
    CHOICE_PARAMETERS,
    DISPATCH,
    SEAM,
    SEAM_CALLER,
    SEAM_VERSIONS,
    _give,
    as_unsloth_calls,
    prepare_packed_attention,
    taking_full_rows,
)
from component.models.varlen_kernel import VarlenKernel

if find_spec("unsloth") is None:
    pytest.skip("unsloth is not installed", allow_module_level=True)

VERSION = SEAM_VERSIONS[0]
SAMPLES = "SDPA, a call for each sample"


@cache
def read_dispatch() -> ast.Module:
    folder = Path(find_spec("unsloth").origin).parent
    return ast.parse((folder / "utils" / "attention_dispatch.py").read_text(encoding="utf-8"))


def dispatch(**settings: object) -> ModuleType:
    """Unsloth's calling function in a module of its own, with the settings that a GPU with torch 2.11 gives."""
    module = ModuleType(DISPATCH)
    module.__dict__.update({"torch": torch, SEAM: None, "_LEAN_VARLEN": False, "HAS_XFORMERS": False, **settings})
    (caller,) = [node for node in read_dispatch().body if getattr(node, "name", None) == SEAM_CALLER]
    exec(compile(ast.Module([caller], []), DISPATCH, "exec"), module.__dict__)
    return module


def without(name: str) -> ModuleType:
    module = dispatch()
    delattr(module, name)
    return module


def calling_otherwise() -> ModuleType:
    """The seam's caller, as it would be if it looked for another kernel."""
    module = dispatch()
    setattr(module, SEAM_CALLER, without)
    return module


def prepare(module, machine, *, config=None, unsloth_version=VERSION) -> PackedAttention:
    settings = {"unsloth_version": unsloth_version, "compute_dtype": "bfloat16", "device": "cpu"}
    return prepare_packed_attention(module, config or transformers.LlamaConfig(), machine, **settings)


def test_the_installed_unsloth_has_the_seam_where_it_was() -> None:
    assert version("unsloth") in SEAM_VERSIONS
    names = [node for node in ast.walk(read_dispatch()) if isinstance(node, ast.Name)]
    stored = {name.id for name in names if isinstance(name.ctx, ast.Store)}
    assert {SEAM, "HAS_XFORMERS", "_NATIVE_BEATS_XFORMERS"} <= stored
    assert "HAS_FLASH_ATTENTION" in {name.id for name in names}  # imported with all else from another module


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
def test_a_seam_in_its_place_gets_as_far_as_the_kernel(machines) -> None:
    module = dispatch()
    assert prepare(module, machines["ampere"]) == PackedAttention(
        SAMPLES,
        "no torch's variable-length kernel: this build of torch has no CUDA; "
        "no flex_attention with a document mask: Unsloth has no place for it",
    )
    assert getattr(module, SEAM) is None


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
def test_each_model_of_a_process_has_a_kernel_of_its_own(machines) -> None:
    """What one was given is taken back before the next one's is looked for: it was checked for another's heads."""

    def theirs(Q: object, K: object, lengths: object, n_groups: object, is_causal: object) -> bool:
        return False

    module = dispatch(**{CHOICE: theirs})
    for _ in range(2):
        _give(module, SEAM, as_unsloth_calls(VarlenKernel(varlen_attn, takes_gqa_flag=True)))
        _give(module, CHOICE, taking_full_rows(theirs))
        assert prepare(module, machines["ampere"]).got == SAMPLES
        assert getattr(module, SEAM) is None and getattr(module, CHOICE) is theirs


@pytest.mark.parametrize(
    ("module", "unsloth_version", "reason"),
    [
        (None, VERSION, f"Unsloth {VERSION} has no {SEAM} where it was"),
        (without(SEAM), VERSION, f"Unsloth {VERSION} has no {SEAM} where it was"),
        (without(SEAM_CALLER), VERSION, f"Unsloth {VERSION} has no {SEAM} where it was"),
        (calling_otherwise(), VERSION, f"Unsloth {VERSION} calls {SEAM} in another way than it did"),
        (dispatch(), "2027.1.1", f"the kernel is given to Unsloth {VERSION} only, and this is 2027.1.1"),
    ],
)
def test_a_seam_that_moved_is_left_alone_with_a_notice(machines, module, unsloth_version, reason) -> None:
    packed = prepare(module, machines["ampere"], unsloth_version=unsloth_version)
    assert packed == PackedAttention(SAMPLES, reason)
    assert packed.notices(machines["ampere"]) == [
        f"packing: packed rows run on {SAMPLES}, slower than a variable-length kernel: {reason}"
    ]


def test_unsloths_own_switch_is_heeded(machines, monkeypatch) -> None:
    monkeypatch.setenv("UNSLOTH_TORCH_VARLEN", "off")
    assert prepare(dispatch(), machines["ampere"]).reason == "UNSLOTH_TORCH_VARLEN is off in the environment"


@pytest.mark.parametrize(
    ("settings", "kernel"),
    [
        ({"HAS_FLASH_ATTENTION": True}, "flash-attn's variable-length kernel"),
        ({"HAS_XFORMERS": True}, "xformers' block-diagonal kernel"),
        ({SEAM: varlen_attn}, "torch's variable-length kernel"),
        ({SEAM: varlen_attn, "HAS_XFORMERS": True, "_NATIVE_BEATS_XFORMERS": True}, "torch's variable-length kernel"),
    ],
)
def test_what_unsloth_takes_by_itself_stays(machines, settings, kernel) -> None:
    module = dispatch(**settings)
    assert prepare(module, machines["ampere"], unsloth_version="2027.1.1").got == kernel
    assert getattr(module, SEAM) is settings.get(SEAM)


def test_capped_scores_are_left_to_unsloth(machines) -> None:
    packed = prepare(dispatch(), machines["ampere"], config=transformers.Gemma2Config())
    assert packed.got == CAPPED


def test_other_families_and_cpus_have_the_attention_of_transformers(machines, cpu) -> None:
    config = transformers.Phi3Config()
    config._attn_implementation = "flex_attention"
    assert prepare(dispatch(), machines["ampere"], config=config) == PackedAttention(
        "flex_attention with a document mask", "Unsloth leaves attention to transformers for phi3"
    )
    config = transformers.LlamaConfig()
    config._attn_implementation = "sdpa"
    assert prepare(None, cpu, config=config) == PackedAttention(
        "SDPA with a dense mask", "Unsloth leaves attention to transformers on a CPU"
    )


@pytest.mark.parametrize(
    ("kernel", "refusal"),
    [
        (VarlenKernel(varlen_attn, takes_gqa_flag=True), None),
        (VarlenKernel(varlen_attn, takes_gqa_flag=False, repeats_heads=True), None),
        (VarlenKernel(varlen_attn, takes_gqa_flag=False), "same number of heads"),
    ],
)
def test_unsloths_call_reaches_the_kernel_as_its_torch_wants_it(kernel, refusal) -> None:
    """Unsloth's function and torch's, on tensors without content: torch 2.12 and later insist on the flag."""
    module = dispatch(**{SEAM: as_unsloth_calls(kernel)})
    query, key = (torch.empty(6, heads, 8, dtype=torch.bfloat16, device="meta") for heads in (4, 2))
    boundaries = torch.empty(3, dtype=torch.int32, device="meta")

    def call() -> torch.Tensor:
        settings = {"scale": None, "window_size": (-1, 0), "enable_gqa": True}
        return getattr(module, SEAM_CALLER)(query, key, key, boundaries, 4, **settings)

    if refusal:
        with pytest.raises(ValueError, match=refusal):
            call()
    else:
        assert call().shape == (6, 4, 8)


def test_full_rows_go_to_the_kernel_too() -> None:
    """Unsloth's own choice sends rows whose samples are of one length elsewhere; its parameters are as they were."""
    (choice,) = [node for node in read_dispatch().body if getattr(node, "name", None) == CHOICE]
    assert tuple(argument.arg for argument in choice.args.args) == CHOICE_PARAMETERS
    asked = []

    def theirs(*arguments: object) -> bool:
        asked.append(arguments[2])
        return False

    choose = taking_full_rows(theirs)
    query, key = torch.empty(1, 8, 1024, 16), torch.empty(1, 2, 1024, 16)
    assert choose(query, key, (512, 512), 4, True)
    assert asked == []
    assert not choose(query, key, (500, 524), 4, True)
    assert not choose(query, key, (512, 512), 4, False)
    assert asked == [(500, 524), (512, 512)]
