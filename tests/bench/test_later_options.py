"""Options that came after the first artefacts: part of keys and records only where they are not at their defaults."""

import pytest

from bench.compose import compose, expand
from bench.data.foreign import as_written
from bench.errors import InputError
from bench.reporting.identity import row_key
from bench.stages.base import Run
from bench.stages.prior import PRIOR

SMOKE = ["preset=smoke", "dataset=digits", "prior=autoregressive"]
LATER = ["prior.position_init=sincos2d", "prior.input_mask=0.1"]


def key(*more):
    return Run(compose([*SMOKE, *more])).recipe(PRIOR).key


def test_at_their_defaults_they_change_no_key():
    """The golden keys hold what the keys are; here the default is written out."""
    assert key("prior.position_init=zeros", "prior.input_mask=0.0") == key()


@pytest.mark.parametrize("option", LATER)
def test_set_they_are_another_training_and_another_row(option):
    assert key(option) != key()
    plain, other = (as_written(compose([*SMOKE, *more])) for more in ([], [option]))
    name, value = option.removeprefix("prior.").split("=")
    assert name not in plain["prior"]["options"] and str(other["prior"]["options"][name]) == value
    assert row_key("prior", "autoregressive", plain) != row_key("prior", "autoregressive", other)


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["prior.position_init=random"], "position_init='random': expected one of 'zeros', 'normal', 'sincos2d'"),
    (["prior.input_mask=1"], "input_mask=1.0: expected a number of at least 0 and below 1"),
    (["prior.input_mask=often"], "prior.input_mask=often: expected float")])
def test_nonsense_is_refused_before_work(arguments, complaint):
    with pytest.raises(InputError, match=complaint):
        expand([*SMOKE, *arguments])


def test_an_input_mask_is_of_the_autoregressive_prior_alone():
    run, = expand([*SMOKE[:2], "prior=absorbing", "prior.input_mask=0.1"])
    assert run.unsupported == "absorbing has no prior.input_mask (of autoregressive alone)"
