"""Samples from elsewhere as rows: one a content, under names that tell them apart."""

import dataclasses

import pytest

from bench.records import Measurement, save_record
from bench.reporting.rows import gather


@pytest.fixture
def rows(synthetic, tmp_path):
    """rows(saved records...) -> {label: FID} of a report on them alone."""
    template = next(r for r in synthetic.write_demo(tmp_path / "demo", media=False) if r.role == "prior")
    protocol = template.measurements[0].protocol

    def add(name, path, fid, content=None, label=None):
        spec = template.spec | {"source": path, "label": label}
        spec |= {"source_sha256": content} if content else {}
        save_record(dataclasses.replace(
            template, id=name, run_key=name, role="source", label=label or "/".join(path.split("/")[-2:]), spec=spec,
            created=f"2026-01-01T00:00:0{len(list(tmp_path.glob('results/records/*')))}", media={}, curves={},
            measurements=(Measurement("fid", fid, protocol, better="lower"),)), tmp_path / "results")

    def read():
        group, = gather(tmp_path / "results").groups
        return {row.label: row.cells["fid"].value for row in group.rows if row.cells}

    return add, read


def test_two_files_of_one_name_are_two_rows(rows):
    add, read = rows
    add("a", "/x/run1/samples.npz", 475.5, content="1" * 64)
    add("b", "/x/run2/samples.npz", 145.7, content="2" * 64)
    assert read() == {"run1/samples.npz": 475.5, "run2/samples.npz": 145.7}


def test_files_of_one_name_in_folders_of_one_name_are_told_apart_by_their_paths(rows):
    add, read = rows
    add("a", "/x/run/samples.npz", 1.0, content="1" * 64)
    add("b", "/y/run/samples.npz", 2.0, content="2" * 64)
    assert read() == {"run/samples.npz (source=/x/run/samples.npz)": 1.0,
                      "run/samples.npz (source=/y/run/samples.npz)": 2.0}


def test_a_file_that_was_overwritten_is_another_row(rows):
    add, read = rows
    add("a", "/x/run/samples.npz", 1.0, content="1" * 64)
    add("b", "/x/run/samples.npz", 2.0, content="2" * 64)
    assert read() == {"run/samples.npz (sha256=11111111)": 1.0, "run/samples.npz (sha256=22222222)": 2.0}


def test_the_same_samples_at_two_places_are_one_row_named_by_the_last_label(rows):
    add, read = rows
    add("a", "/x/run1/samples.npz", 3.0, content="1" * 64, label="first name")
    add("b", "/x/copy.npz", 3.0, content="1" * 64, label="StyleGAN2")
    add("c", "/x/copy.npz", 3.0, content="1" * 64)
    assert read() == {"StyleGAN2": 3.0}


def test_records_made_before_contents_were_hashed_are_known_by_their_paths(rows):
    add, read = rows
    add("a", "/x/run1/samples.npz", 475.5)
    add("b", "/x/run2/samples.npz", 145.7)
    assert sorted(read().values()) == [145.7, 475.5]
