"""The pages of docs/ as a site: every page has its place, every link leads somewhere, and it builds strictly."""

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MISSING = [name for name in ("mkdocs", "material") if importlib.util.find_spec(name) is None]


def pages_of(nav):
    for entry in nav:
        values = entry.values() if isinstance(entry, dict) else [entry]
        for value in values:
            yield from pages_of(value) if isinstance(value, list) else [value]


def test_every_page_has_its_place_in_the_site():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    assert sorted(pages_of(nav)) == sorted(path.name for path in [*DOCS.glob("*.md"), *DOCS.glob("*.ipynb")])


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_every_file_that_a_page_of_the_site_links_to_is_there(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).is_file()] == []


class Links(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.ids = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids.add(given.get("id"))
        self.links += [given[name] for name in ("href", "src") if given.get(name)]


@pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)}: pip install 'vq-prior-bench[docs]'")
def test_the_site_builds_strictly_and_its_links_lead_somewhere(tmp_path):
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = [path for path in tmp_path.rglob("*.html") if path.name != "404.html"]   # whose links begin at the root
    read = {path: Links(path.read_text(encoding="utf-8")) for path in pages}
    assert tmp_path / "how-do-i.html" in read
    broken, fetched = [], []
    for path, page in read.items():
        for link in page.links:
            url, anchor = urldefrag(unquote(link))
            if url.startswith(("http:", "https:", "//")):
                fetched += [link] if url.endswith((".css", ".js")) else []
                continue
            target = (path.parent / url).resolve() if url else path
            target = target / "index.html" if target.is_dir() else target
            is_there = target.is_file() and (not anchor or target.suffix != ".html" or anchor in read[target].ids)
            broken += [] if is_there or url.startswith(("data:", "mailto:", "javascript:")) else [(path.name, link)]
    assert broken == [] and fetched == []
