"""Write the generated pages of docs/: `python script/write_docs.py`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from component.config.reference import reference_page
from component.pipeline.claims_tables import CLAIMS_TABLES
from component.pipeline.family_table import family_page
from component.pipeline.guide_tables import fill_tables
from component.pipeline.unsloth_table import unsloth_page


def main() -> int:
    """Write the pages that are made from code, and docs/templates.md where the test assets are."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    page = Path(__file__).resolve().parent.parent / "docs" / "config.md"
    page.parent.mkdir(exist_ok=True)
    page.write_text(reference_page(), encoding="utf-8")
    print(f"wrote {page}")
    repository = Path(__file__).resolve().parent.parent
    page = repository / "docs" / "families.md"
    page.write_text(family_page(repository / "train_args"), encoding="utf-8")
    print(f"wrote {page}")
    page = repository / "docs" / "unsloth.md"
    page.write_text(unsloth_page(), encoding="utf-8")
    print(f"wrote {page}")
    page = repository / "docs" / "hyperparameters.md"
    page.write_text(fill_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote the tables of {page}")
    page = repository / "docs" / "claims.md"
    page.write_text(fill_tables(page.read_text(encoding="utf-8"), CLAIMS_TABLES), encoding="utf-8")
    print(f"wrote the tables of {page}")
    assets = Path(os.environ.get("LAMPYRIS_TEST_ASSETS", repository.parent / "shared"))
    if (assets / "chat_templates").is_dir():
        from transformers import AutoTokenizer

        from component.pipeline.template_table import template_page

        tokenizers = {
            folder.name: AutoTokenizer.from_pretrained(folder) for folder in sorted(assets.glob("tokenizers/*"))
        }
        files = sorted((assets / "chat_templates").glob("*.jinja"))
        page = repository / "docs" / "templates.md"
        page.write_text(template_page(files, tokenizers), encoding="utf-8")
        print(f"wrote {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
