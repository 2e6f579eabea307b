"""What of torch's global settings a run sets, and puts back."""

import pytest
import torch

from acn_cl.runner import Quiet, run
from acn_cl.spec import Experiment


def products():
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision


@pytest.mark.parametrize("engine", ["auto", "avalanche"])
@pytest.mark.parametrize(("tf32", "expected"), [(False, "ieee"), (True, "tf32")])
def test_a_run_says_what_fp32_products_are_computed_in(tiny, tmp_path, engine, tf32, expected):
    """Matrix products and convolutions alike; torch's defaults for the two differ, and are there again afterwards."""
    seen = []

    class Looking(Quiet):
        def epoch_done(self, experience, epoch, loss):
            seen.append(products())

    before = products()
    stream = {"name": "split-digits", "stop_after": 1}
    (outcome,) = run(Experiment(**tiny(stream=stream, engine=engine, tf32=tf32)), tmp_path, Looking())
    assert outcome.state == "done", outcome.error
    assert seen == [(expected, expected)]
    assert products() == before
    assert before[0] != before[1]
