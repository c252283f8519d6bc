"""Write the generated pages of docs/: `python script/write_docs.py`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from component.config.reference import reference_page


def main() -> int:
    """Write docs/config.md."""
    page = Path(__file__).resolve().parent.parent / "docs" / "config.md"
    page.parent.mkdir(exist_ok=True)
    page.write_text(reference_page(), encoding="utf-8")
    print(f"wrote {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
