"""The documentation points to files that exist."""

import re

import pytest
from conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "results" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    links = [link.partition("#")[0] for link in LINK.findall(page.read_text())]
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_results_stay_small():
    sizes = {file: file.stat().st_size for file in (ROOT / "results").rglob("*") if file.is_file()}
    predictions = sum(size for file, size in sizes.items() if file.suffix == ".jsonl")
    assert sum(sizes.values()) < 2_000_000 and predictions < 200_000
