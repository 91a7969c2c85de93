"""What exists is documented, and the pages are those that the code makes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]


def test_reference_is_complete_and_current() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/reference", "--check"], cwd=TOP, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


PAGES = sorted(path for path in TOP.glob("[!.]*/**/*.md") if "build" not in path.parts) + sorted(TOP.glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(TOP)) for page in PAGES])
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), link
