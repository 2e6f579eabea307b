"""The lean step of one run: Avalanche's numbers, and nobody waits for the device within an epoch."""

import pandas as pd
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import acn_cl.training.per_run
from acn_cl.spec import Experiment
from acn_cl.training.optim import clip, clip_runs
from acn_cl.training.per_run import OneByOne, Vmapped, choose_per_run
from acn_cl.training.session import Session
from acn_cl.training.stack import StackSession

STREAM = {"name": "split-digits", "stop_after": 3}


class Silent:
    def epoch_done(self, experience, epoch, loss):
        pass

    def experience_done(self, experience, results):
        pass

    def save(self, checkpoint):
        pass


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("strategy", [{"name": "naive"}, {"name": "si", "lambda": 10}, {"name": "ewc", "lambda": 100}])
@pytest.mark.parametrize("labels", ["per-experience", "global"])
def test_one_run_is_avalanches_to_the_last_bit(tiny, tmp_path, strategy, precision, labels):
    """The same operations in the same order: nothing to round otherwise, on a CPU with one thread or several."""
    stream = STREAM | {"labels": labels}
    experiment = Experiment(**tiny(stream=stream, strategy=strategy, precision=precision, batch_size=32, epochs=2))
    theirs = Session(experiment, 0, tmp_path)
    theirs.train(Silent())
    ours = StackSession([(experiment, 0)])
    ours.train([Silent()])
    (run,) = ours.runs
    for name, parameter in theirs.network.state_dict().items():
        assert torch.equal(run.weights[name], parameter), name
    pd.testing.assert_frame_equal(pd.DataFrame(run.results.accuracy), pd.DataFrame(theirs.results.accuracy))
    pd.testing.assert_frame_equal(pd.DataFrame(run.results.layers), pd.DataFrame(theirs.results.layers))


class CountsWaits(TorchDispatchMode):
    """Counts what makes the host wait for a device: a tensor read as a number."""

    waits = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.waits += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("strategy", [{"name": "naive"}, {"name": "si"}, {"name": "ewc"}])
def test_the_host_reads_no_number_within_an_epoch(tiny, strategy):
    """Four times the steps, as many reads."""

    def waits(batch_size):
        stream = {"name": "split-digits", "images_per_class": 64, "stop_after": 2}
        session = StackSession([(Experiment(**tiny(stream=stream, strategy=strategy, batch_size=batch_size)), 0)])
        with CountsWaits() as mode:
            session.train([Silent()])
        return mode.waits

    assert waits(16) == waits(64)


def test_clipping_a_stack_is_clipping_each_run():
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(3, *shape, generator=generator) for shape in ((5, 7), (11,), (2, 3, 13))]
    for gradient in gradients:
        gradient[1] *= 1e-3  # below the largest norm: to be left alone
    runs = []
    for run in range(3):
        parameters = [torch.zeros_like(g[run]) for g in gradients]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient[run].clone()
        clip(torch.optim.SGD([p.requires_grad_() for p in parameters], lr=1.0), 0.5)
        runs.append([p.grad for p in parameters])
    before = gradients[0][1].clone()
    clip_runs(gradients, 0.5)
    for run, expected in enumerate(runs):
        for gradient, one in zip(gradients, expected, strict=True):
            torch.testing.assert_close(gradient[run], one)
    assert torch.equal(gradients[0][1], before)


def test_both_ways_to_compute_a_stack_give_the_gradients_worked_out_by_hand():
    """loss = w²x + b: dloss/dw = 2wx; b is not differentiated by."""
    moved, fixed = {"w": torch.tensor([[2.0], [3.0], [5.0]])}, {"b": torch.tensor([[7.0], [11.0], [13.0]])}
    x = torch.tensor([[1.0], [10.0], [100.0]])
    for way in (OneByOne(), Vmapped()):
        values, (gradient,) = way.gradients(lambda m, f, x: (m["w"] ** 2 * x + f["b"]).sum(), moved, fixed, x)
        assert values.tolist() == [4 + 7, 90 + 11, 2500 + 13]
        assert gradient.tolist() == [[4], [60], [1000]]
        assert way.values(lambda m, x: m["w"] * x, moved, x).tolist() == [[2], [30], [500]]


def test_a_cpu_computes_run_after_run_and_a_gpu_all_at_once():
    for precision in ("fp32", "bf16"):
        assert isinstance(choose_per_run(torch.device("cpu"), precision, 8), OneByOne)
        assert isinstance(choose_per_run(torch.device("mps"), precision, 1), OneByOne)
        for runs in (1, 8):
            way = choose_per_run(torch.device("cuda"), precision, runs)
            assert isinstance(way, Vmapped)
            assert way.compiler is not None


@pytest.mark.parametrize(
    ("amx", "precision", "compiles"), [(True, "bf16", True), (True, "fp32", False), (False, "bf16", False)]
)
def test_a_cpu_compiles_in_bf16_where_products_are_fast(monkeypatch, amx, precision, compiles):
    monkeypatch.setattr(acn_cl.training.per_run, "has_amx", lambda: amx)
    assert (choose_per_run(torch.device("cpu"), precision, 1).compiler is not None) == compiles
