"""plan.png: the parts of the peak as one bar, beside the memory of the card."""

from __future__ import annotations

import io
from pathlib import Path

from component.artifacts.plan_facts import PlanFacts
from component.artifacts.strict_json import write_atomically


def draw_plan(facts: PlanFacts, path: Path) -> None:
    """Draw a plan into a PNG.

    Raises:
        MachineError: the disk is full, or the place cannot be written.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    colors, start = colormaps["tab20"].colors, 0.0
    parts = [*facts.parts, ("reserved, not allocated", facts.reserved_bytes - facts.allocated_bytes)]
    for place, (name, num_bytes) in enumerate(parts):
        size = num_bytes / 2**30
        color = "#dddddd" if place == len(parts) - 1 else colors[place % len(colors)]
        axis.barh(0, size, left=start, color=color, label=f"{name} {size:.2f}", edgecolor="white", linewidth=0.5)
        start += size
    if facts.memory_bytes is not None:
        axis.axvline(facts.memory_bytes / 2**30, color="#b00020", linewidth=1.6, label="memory of the card")
    axis.set_xlim(0, 1.04 * max(start, (facts.memory_bytes or 0) / 2**30))
    axis.set_yticks([])
    axis.set_xlabel("GiB")
    axis.set_title(facts.title, loc="left", fontweight="bold", fontsize=10)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.legend(frameon=False, fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.25))
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomically(path, picture.getvalue())
