"""What the pages link to outside of docs/ (code, figures, the SLURM guide) becomes a part of the site, under tree/.

A hook of mkdocs.yml. A link to a file that is not there ends the build.
"""

import os
import re
from pathlib import Path

from mkdocs.exceptions import BuildError
from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = re.compile(r"(?<=\]\()((?:\.\./)+)([^)#\s]+)")


def on_files(files, config):
    """Add every file outside of docs/ that a page names."""
    found = {target for page in files.documentation_pages() for target in _targets(Path(page.abs_src_path))}
    for target in sorted(found):
        files.append(File.generated(config, _shown_as(target), abs_src_path=str(ROOT / target),
                                    inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown, page, config, files):
    """Point links to where those files lie in the site."""
    source = Path(config.docs_dir) / page.file.src_uri
    if not source.is_file():   # one of those files itself: what it links to is named as code
        return re.sub(r"\[([^]]+)\]\((?!https?:|#)[^)]+\)", r"`\1`", markdown)
    up = "../" * page.file.src_uri.count("/")
    return OUTSIDE.sub(lambda link: up + _shown_as(_target(source, link[0])), markdown)


def _targets(page: Path):
    for link in OUTSIDE.finditer(page.read_text(encoding="utf-8")):
        target = _target(page, link[0])
        if not (ROOT / target).is_file():
            raise BuildError(f"{page.name} links to {link[0]}, and there is no such file. Correct the link.")
        yield target


def _target(page: Path, link: str) -> str:
    return Path(os.path.normpath(page.parent / link)).relative_to(ROOT).as_posix()


def _shown_as(target: str) -> str:
    """Code is shown by a browser instead of being downloaded."""
    return f"tree/{target}{'.txt' if target.endswith(('.py', '.yaml', '.sh')) else ''}"
