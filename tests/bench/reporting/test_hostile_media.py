"""What a record may refer to: regular files in its own media folder, of the kind and size it says; nothing else."""

import base64
import dataclasses
import os
import re
import struct
import zlib

import pytest
from PIL import Image

from bench import report
from bench.records import Sheet, save_record
from bench.reporting.rows import gather

RED = Image.new("RGB", (32, 32), (255, 0, 0))


@pytest.fixture
def record(synthetic, tmp_path):
    """A record with a sheet of one tile in its own folder; a picture of somebody's lies beside the results folder."""
    RED.save(tmp_path / "private.png")
    made = synthetic.make_record(tmp_path / "results", "prior", synthetic.spec_of("unigram"),
                                 [synthetic.measurement("fid", 9.0, 1.0, "p")], created="1", media=("samples",))
    sheet = Sheet(made.media["samples"].path, 1, 1, (32, 32))
    RED.save(tmp_path / "results" / sheet.path)
    return dataclasses.replace(made, media={"samples": sheet})


def damage_of(record, tmp_path, path=None, **changes):
    """Of a report of this record, with another path or size of its sheet: exit code, what is damaged, the page."""
    sheet = dataclasses.replace(record.media["samples"], **({"path": str(path)} if path else {}), **changes)
    save_record(dataclasses.replace(record, media={"samples": sheet}), tmp_path / "results")
    code = report.main([f"results_dir={tmp_path / 'results'}", f"out={tmp_path / 'out'}", "figures=false"])
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    return code, gather(tmp_path / "results").damaged, page


def pictures(page):
    return [base64.b64decode(text) for text in re.findall(r"data:image/webp;base64,([\w+/=]+)", page)]


def test_its_own_sheet_is_shown(record, tmp_path):
    code, damaged, page = damage_of(record, tmp_path)
    assert (code, damaged) == (0, ()) and len(pictures(page)) == 1


@pytest.mark.parametrize("path", ["{root}/private.png", "../private.png", "media/{id}/../../../private.png",
                                  "media/{id}/..", "media/{id}", "media/other/samples.png", "private.png", "",
                                  "/dev/zero", "media/{id}/sub/samples.png", "./media/{id}/samples.png"])
def test_a_path_that_leads_elsewhere_is_named_and_nothing_of_it_is_shown(record, tmp_path, path):
    for folder in ("media/other", f"media/{record.id}/sub"):
        (tmp_path / "results" / folder).mkdir(parents=True)
        RED.save(tmp_path / "results" / folder / "samples.png")
    sheet = dataclasses.replace(record.media["samples"], path=path.format(root=tmp_path, id=record.id))
    save_record(dataclasses.replace(record, media={"samples": sheet}), tmp_path / "results")
    assert report.main([f"results_dir={tmp_path / 'results'}", f"out={tmp_path / 'out'}", "figures=false"]) == 1
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "expected a file in media/" in page and pictures(page) == [] and "unigram" in page


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_link_is_not_followed(record, tmp_path, what):
    own = tmp_path / "results" / "media" / record.id
    if what == "file":
        (own / "samples.png").unlink()
        (own / "samples.png").symlink_to(tmp_path / "private.png")
    else:
        own.rename(tmp_path / "elsewhere")
        own.symlink_to(tmp_path / "elsewhere")
    code, [(_, problem)], page = damage_of(record, tmp_path)
    assert code == 1 and "a link" in problem and pictures(page) == []


@pytest.mark.parametrize("kind", ["fifo", "folder", "large", "jpeg", "text", "truncated", "bomb"])
def test_what_is_no_png_of_the_size_its_record_says_is_named(record, tmp_path, kind):
    path = tmp_path / "results" / record.media["samples"].path
    content = path.read_bytes()
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "jpeg":
        RED.save(path, "JPEG")
    elif kind == "bomb":
        header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
        chunk = b"IHDR" + header
        path.write_bytes(content[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:])
    else:
        path.write_bytes({"text": b"hello", "truncated": content[:-30]}.get(kind, content))
        if kind == "large":
            os.truncate(path, 10**11)
    code, [(named, problem)], page = damage_of(record, tmp_path)
    assert code == 1 and named == path and "not a readable picture" in problem and pictures(page) == []


def test_a_sheet_of_more_pixels_than_a_report_can_hold_is_refused_by_its_record(record, tmp_path):
    code, damaged, _ = damage_of(record, tmp_path, rows=4096, columns=4096, tile=(64, 64))
    assert code == 1 and "expected at most 64,000,000" in damaged[0][1]


@pytest.mark.parametrize("text", ["a\0b", "step,metric,value\nnan,validation_bits_per_token,1\n1,x", "x" * 200_000,
                                  "step,metric,value\n1e308,validation_bits_per_token,1e308\n", "\x1b[2J"])
def test_odd_curves_are_named_or_left_out(record, tmp_path, text):
    (tmp_path / "results" / "media" / record.id / "prior.csv").write_text(text)
    curves = {"prior": f"media/{record.id}/prior.csv"}
    save_record(dataclasses.replace(record, curves=curves), tmp_path / "results")
    assert report.main([f"results_dir={tmp_path / 'results'}", f"out={tmp_path / 'out'}", "page=false"]) in (0, 1)


def test_a_curve_from_elsewhere_is_named(record, tmp_path):
    (tmp_path / "private.csv").write_text("step,metric,value\n1,validation_bits_per_token,2\n")
    save_record(dataclasses.replace(record, curves={"prior": "../private.csv"}), tmp_path / "results")
    assert "expected a file in media/" in gather(tmp_path / "results").damaged[0][1]
