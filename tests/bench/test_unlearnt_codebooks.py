"""vq.quantizer=fsq and lfq on the command line: sizes are derived, a contradiction is named, a run ends in records."""

import pytest

from bench.compose import compose
from bench.errors import InputError
from bench.pipeline import run
from bench.store.store import Store

SMOKE = ["dataset=digits", "preset=smoke", "prior=unigram", "metrics.names=[nll]"]
GIVEN = {"fsq": ["vq.quantizer=fsq", "vq.levels=[5,3]"], "lfq": ["vq.quantizer=lfq"]}


def test_levels_settle_the_sizes_of_the_codebook():
    options = compose([*SMOKE, *GIVEN["fsq"]]).vq.options
    assert (options["codebook_size"], options["embedding_dim"], options["levels"]) == (15, 2, (5, 3))
    assert compose([*SMOKE, *GIVEN["lfq"]]).vq.options["embedding_dim"] == 4   # 16 codes


@pytest.mark.parametrize(("more", "message"), [
    (["vq.codebook_size=16"], "codebook_size=16: expected 15, the product of levels"),
    (["vq.embedding_dim=8"], "embedding_dim=8: expected 2"), (["vq.levels=[5,x]"], "vq.levels"),
    (["vq.codebook_init=data"], "codebook_init='data': expected 'uniform'")])
def test_a_size_that_contradicts_the_levels_is_an_error(more, message):
    with pytest.raises(InputError, match=message):
        compose([*SMOKE, *GIVEN["fsq"], *more])


@pytest.mark.network
@pytest.mark.parametrize("kind", GIVEN)
def test_it_is_trained_and_sampled_from(kind, tmp_path):
    spec = compose([*SMOKE, *GIVEN[kind], "vq.quant_convs=separate", "vq.z_channels=8", "vq.training.steps=5",
                    f"results_dir={tmp_path / 'runs'}"])
    record = run(spec, store=Store(tmp_path / "store"), announce=lambda text: None)
    assert record.status == "ok" and record.measurements[0].value > 0
