"""The page without a browser: self-contained, small, and what it is made of."""

import base64
import dataclasses
import hashlib
import json
import re

import pytest

from bench.reporting.claims import ledger
from bench.reporting.figures import Drawing, Skipped
from bench.reporting.paper_figures import curves_of
from bench.reporting.pictures import pictures_of, rows_of, sheet_file
from bench.reporting.rows import gather
from bench.reporting.webpage import _breakable, render_page


def page_of(results_dir, **options):
    book = gather(results_dir)
    return render_page(book, {g.slug: ledger(g, results_dir) for g in book.groups},
                       {g.slug: curves_of(g, results_dir) for g in book.groups}, **options)


@pytest.fixture(scope="module")
def page(demo_results):
    return page_of(demo_results)


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def test_the_page_loads_nothing_from_elsewhere(page):
    markup = re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.S)
    links = re.findall(r'(?:src|href)="([^"]*)"', markup) + re.findall(r"url\(([^)]*)\)", markup)
    assert [link for link in links if not link.startswith(("data:", "#"))] == []
    assert "@import" not in markup


def test_every_number_knows_its_records(page):
    data = data_of(page)
    indices = {int(i) for i in re.findall(r'data-cell="(\d+)"', page)}
    assert indices == set(range(len(data["cells"])))
    for shared, _, _, sources in data["cells"]:
        about = data["parts"][shared]
        assert sources or "published" in about or about["title"] == "Params" or about["note"].startswith("not run")
        assert all(data["ids"][source[0]] in data["records"] for source in sources)


def test_a_label_cannot_smuggle_markup_into_the_page(synthetic, tmp_path):
    evil = "</script><script>alert(1)</script>"
    synthetic.make_record(tmp_path, "source", synthetic.spec_of(None), [synthetic.measurement("fid", 1.0, .1, "p")],
                          created="1", label=evil)
    assert evil not in page_of(tmp_path)


def test_a_note_of_the_data_s_own_placeholder_is_only_text(synthetic, tmp_path):
    measured = dataclasses.replace(synthetic.measurement("fid", None, None, "p"), note="@@DATA@@ {{ data_json() }}")
    synthetic.make_record(tmp_path, "source", synthetic.spec_of(None), [measured], created="1",
                          label='"</script><img src=x onerror=alert(1)>')
    page = page_of(tmp_path)
    assert page.count('"records":') == 1 and "<img src=x" not in page


def test_the_page_allows_its_own_script_alone(page):
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="(.*?)">', page)[1]
    script = re.search(r"<script>(.*?)</script>", page, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;;" in policy and policy.startswith("default-src &#39;none&#39;")
    assert page.count("<script") == 2


def test_a_long_option_can_break_in_a_narrow_column():
    assert str(_breakable("absorbing, 8 steps (sampler.order=halton)")) == \
        "absorbing, 8 steps (sampler.<wbr>order=<wbr>halton)"
    assert str(_breakable("<b> 0.9")) == "&lt;b&gt; 0.9"


def test_pictures_that_exceed_the_budget_are_left_out_and_counted(demo_results):
    page = page_of(demo_results, media_bytes=10)
    assert "data:image/webp" not in page
    assert re.search(r"\d+ sheets were left out", page)


def test_a_page_without_records_of_its_group_still_explains_its_holes(synthetic, tmp_path):
    synthetic.write_demo(tmp_path, media=False)
    for path in (tmp_path / "records").glob("*.json"):
        path.unlink()
    assert "no record: 1 run asked for by a sweep" in page_of(tmp_path)


def test_figures_without_their_data_are_skipped_with_a_reason(synthetic, tmp_path):
    synthetic.make_record(tmp_path, "prior", synthetic.spec_of("unigram"),
                          [synthetic.measurement("fid", 278.0, 1.0, "demo-x")], created="1")
    [group] = gather(tmp_path).groups
    items = curves_of(group, tmp_path) + pictures_of(group, tmp_path)
    assert all(isinstance(item, Skipped) and item.reason for item in items)


def test_all_figures_of_the_paper_can_be_drawn_from_a_full_set_of_records(demo_results):
    [group] = gather(demo_results).groups
    items = curves_of(group, demo_results) + pictures_of(group, demo_results)
    drawn = {item.name.removesuffix("-cifar10-demo") for item in items if isinstance(item, Drawing)}
    assert drawn == {"fid-steps", "fid-seconds", "bound-training", "temperature", "samples", "neighbours", "canvas",
                     "inpaint", "filmstrip", "reconstruction"}


def test_a_sheet_is_cut_into_the_tiles_that_were_put_together(demo_results, synthetic, tmp_path):
    import numpy as np
    from PIL import Image

    from bench.records import Sheet
    tiles = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 5, 3), dtype=np.uint8)
    Image.fromarray(tiles.swapaxes(1, 2).reshape(8, 15, 3)).save(tmp_path / "sheet.png")
    assert (rows_of(tmp_path / "sheet.png", Sheet("sheet.png", 2, 3, (4, 5))) == tiles).all()


def test_a_sheet_of_another_size_than_its_record_says_is_named_as_damaged(synthetic, tmp_path):
    from PIL import Image
    record = synthetic.make_record(tmp_path, "prior", synthetic.spec_of("unigram"), [], created="1", media=("samples",))
    Image.new("RGB", (10, 10)).save(tmp_path / record.media["samples"].path)
    book = gather(tmp_path)
    assert "10 x 10 pixels" in book.damaged[0][1] and not book.records[record.id].media


def test_a_truncated_sheet_is_named_as_damaged_and_the_rest_is_shown(synthetic, tmp_path):
    record = synthetic.make_record(tmp_path, "prior", synthetic.spec_of("unigram"),
                                   [synthetic.measurement("fid", 9.0, 1.0, "p")], created="1", media=("samples",))
    path = tmp_path / record.media["samples"].path
    path.write_bytes(path.read_bytes()[:1000])
    assert [p for p, _ in gather(tmp_path).damaged] == [path]
    assert "samples.png" in page_of(tmp_path)


def test_a_broken_curve_is_named_as_damaged(synthetic, tmp_path):
    record = synthetic.make_record(tmp_path, "prior", synthetic.spec_of("unigram"), [], created="1", curve_end=6.0)
    (tmp_path / record.curves["prior"]).write_text("step,metric,value\n1,validation_bits_per_token,oops\n")
    assert "oops" in gather(tmp_path).damaged[0][1]


def test_a_sheet_whose_file_is_gone_is_no_sheet(demo_results, synthetic, tmp_path):
    record = synthetic.make_record(tmp_path, "prior", synthetic.spec_of("unigram"), [], created="1", media=("samples",))
    (tmp_path / record.media["samples"].path).unlink()
    assert sheet_file(record, tmp_path, "samples") is None


def test_a_thousand_records_stay_under_fifteen_megabytes(synthetic, tmp_path):
    synthetic.write_demo(tmp_path, seeds=range(143), media=False)
    assert len(list((tmp_path / "records").glob("*.json"))) >= 1000
    assert len(page_of(tmp_path).encode()) < 15_000_000
