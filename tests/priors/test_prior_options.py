"""Wrong values of options fail where they are made, naming value, expectation and way out; torch stays out."""

import subprocess
import sys

import pytest

from priors.options import (
    AbsorbingOptions,
    AbsorbingSampler,
    AnyOrderSampler,
    AutoregressiveOptions,
    AutoregressiveSampler,
    UnigramOptions,
    UnigramSampler,
)

WRONG = [
    (AbsorbingSampler, dict(steps=0), "steps=0: expected an integer of at least 1"),
    (AbsorbingSampler, dict(steps=2.5), "steps=2.5"),
    (AbsorbingSampler, dict(temperature=-1), "temperature=-1: expected a number above 0"),
    (AbsorbingSampler, dict(temperature=float("nan")), "temperature=nan"),
    (AbsorbingSampler, dict(top_p=1.5), "top_p=1.5"),
    (AbsorbingSampler, dict(schedule="cosin"), "did you mean 'cosine'"),
    (AbsorbingSampler, dict(order="halton", counts="random"), "exact counts"),
    (AbsorbingSampler, dict(method="loop", schedule="cosine"), "schedule='cosine': method='loop'"),
    (AbsorbingSampler, dict(method="remask", order="halton"), "order='halton': method='remask'"),
    (AbsorbingSampler, dict(confidence_noise=1.0), "order='confidence' alone"),
    (AbsorbingSampler, dict(method="remdm", order="confidence"), "order='confidence': method='remdm'"),
    (AbsorbingSampler, dict(method="remdm", schedule="optimal"), "schedule='optimal': method='remdm'"),
    (AbsorbingSampler, dict(remasking="cap"), "used by method='remdm' alone, but method='event'; leave it out"),
    (AbsorbingSampler, dict(remasking_strength=0.1), "method='remdm' and 'predictor_corrector' alone"),
    (AbsorbingSampler, dict(method="remdm", corrector_steps=2), "corrector_steps=2: used by"),
    (AbsorbingSampler, dict(method="predictor_corrector", corrector_steps=0), "corrector_steps=0: expected an integer"),
    (AbsorbingSampler, dict(method="remdm", remasking="rescaled"), "did you mean 'rescale'"),
    (AbsorbingSampler, dict(method="remdm", remasking_strength=1.5), "of at least 0 and at most 1"),
    (AbsorbingOptions, dict(width=30, num_heads=8), "multiple of num_heads"),
    (AbsorbingOptions, dict(timesteps=0), "timesteps=0"),
    (AbsorbingOptions, dict(dropout=1.0), "dropout=1.0"),
    (AbsorbingOptions, dict(objective="elbo", weighting="eq7"), "leave weighting out"),
    (AbsorbingOptions, dict(objective="vlb"), "expected one of"),
    (AutoregressiveOptions, dict(order="diagonal"), "expected one of"),
    (AutoregressiveSampler, dict(top_k=0), "top_k=0"),
    (AutoregressiveSampler, dict(cache=1), "cache=1"),
    (AutoregressiveSampler, dict(method="jacobian"), "did you mean 'jacobi'"),
    (AutoregressiveSampler, dict(jacobi_window=4), "used by method='jacobi' alone"),
    (AutoregressiveSampler, dict(method="jacobi", jacobi_window=0), "jacobi_window=0: expected an integer"),
    (AnyOrderSampler, dict(method="speculate"), "did you mean 'speculative'"),
    (AnyOrderSampler, dict(method="speculative", jacobi_window=4), "used by method='jacobi' alone"),
    (AnyOrderSampler, dict(speculative_window=4), "used by method='speculative' alone"),
    (AnyOrderSampler, dict(method="speculative", speculative_window=0), "speculative_window=0: expected an integer"),
    (UnigramOptions, dict(smoothing=0), "smoothing=0"),
    (UnigramSampler, dict(temperature=0), "temperature=0"),
]


@pytest.mark.parametrize(("options", "values", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_value_is_an_error(options, values, message):
    with pytest.raises(ValueError, match=message):
        options(**values)


def test_options_do_not_import_torch():
    code = "import sys, priors.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
