"""The LaTeX tables in pdflatex itself: no error, nothing beyond the margin, whatever the rows are called."""

import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from bench.report import write_tables
from bench.reporting.paper import paper_tables
from bench.reporting.render import latex
from bench.reporting.rows import gather
from bench.reporting.tables import summary

needs_pdflatex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex (Debian packages "
                                    "texlive-latex-base and texlive-latex-recommended)")
HOSTILE = r"50% of_{x} & #1 ~ \n $5 <a> 'b' ^c → γ 猫 Fréchet ‖x‖" + "\n\nit's “so” — …"
EVERYTHING = " ".join(map(chr, range(1, 0x180)))


@pytest.fixture(scope="module")
def tables(synthetic, tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    synthetic.write_demo(folder)
    synthetic.write_troubled(folder)
    groups = gather(str(folder)).groups
    found = [table for group in groups for table in (summary(group), *paper_tables(group))]
    first, *rest = found[0].rows
    odd = replace(found[0], name="odd", title=HOSTILE, caption=EVERYTHING, rows=(replace(first, label=HOSTILE), *rest))
    return [*found, odd]


@needs_pdflatex
def test_every_table_compiles_with_the_packages_its_header_names(tables, tmp_path):
    write_tables(tables, tmp_path)
    packages = {re.match(r"% needs (\\usepackage\{[^}]+\})", latex(table))[1] for table in tables}
    body = "\n".join(rf"\input{{{table.name}}}\clearpage" for table in tables)
    (tmp_path / "all.tex").write_text("\n".join([r"\documentclass{article}", *packages, r"\begin{document}", body,
                                                 r"\end{document}"]))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Overfull" not in done.stdout and "Missing character" not in (tmp_path / "all.log").read_text("latin-1")


def test_the_header_names_the_packages_a_table_needs(tables):
    assert all(latex(table).splitlines()[0] == r"% needs \usepackage{booktabs,graphicx}" for table in tables)


def test_a_character_that_latex_does_not_know_is_named_not_dropped(tables):
    text = latex(tables[-1])
    assert "U+732B" in text and r"Fréchet" in text and "→" not in text
