"""Table 5's four tokenizers, from the command line to the report."""

import pytest

from bench.report import main as report
from bench.run import main as run

pytestmark = [pytest.mark.slow, pytest.mark.network]   # real Inception features of four tokenizers


def test_the_sweep_over_four_tokenizers_fills_table_5_and_its_claim(tmp_path, own_cache):
    assert run(["vq=default,lambda_max,diffaug,both", "source=reconstruction", "preset=smoke", "dataset=digits",
                "metrics.names=[fid,kid]", f"results_dir={tmp_path / 'runs'}"]) == 0
    assert report([f"results_dir={tmp_path / 'runs'}", f"out={tmp_path / 'report'}"]) == 0
    table = (tmp_path / "report" / "tables" / "table5-digits-smoke.md").read_text().splitlines()
    for row in ("Default", "λ_max = 1", "DiffAug", "Both"):
        line, = [line for line in table if line.startswith(f"| {row} ")]
        assert float(line.strip("| ").split("|")[-1].strip(" *")) > 0   # measured, beside the published two
    ledger = (tmp_path / "report" / "tables" / "claims-digits-smoke.md").read_text().splitlines()
    claim, = [line for line in ledger if "(Table 5)" in line]
    assert "not run" not in claim
