"""Suite `loaders`: its caption says what the lines have in common, and where they differ."""

from __future__ import annotations

import argparse

from component.pipeline.benchmark.loader_suite import ADAPTERS, USE_UNSLOTH, add_options, build_cases, caption

KEYS_OF_LINES = {"use_unsloth", "fused_lora"}


def test_the_caption_says_which_adapters_a_line_has() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    shown = {
        loader: build_cases(parser.parse_args(["--loaders", *loader.split()]))
        for loader in ("vanilla unsloth", *USE_UNSLOTH)
    }
    assert {loader: len(cases) for loader, cases in shown.items()} == {"vanilla unsloth": 5, "vanilla": 2, "unsloth": 3}
    for loader, cases in shown.items():
        common = [{key: value for key, value in case.settings.items() if key not in KEYS_OF_LINES} for case in cases]
        assert all(settings == common[0] for settings in common)
        assert caption(cases).startswith("All lines with the same settings: qlora, rank 64; medians.")
        assert caption(cases).endswith(ADAPTERS) is ("unsloth" in loader)
    unsloth = {
        case.name: case.settings.get("fused_lora", True) for case in shown["unsloth"] if case.program == "train.py"
    }
    assert unsloth == {"unsloth, train.py, Unsloth's own adapters": False, "unsloth, train.py": True}
