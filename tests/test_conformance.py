"""The conformance kit over the whole table, and strategies that do not do what they say: it must catch each of them."""

import sys
from functools import cache

import pytest
import torch
from avalanche.core import SupervisedPlugin

from acn_cl.strategies.l2 import L2
from acn_cl.strategies.plugin import StrategyPlugin
from acn_cl.strategies.regulariser import RegulariserPlugin
from acn_cl.strategies.table import STRATEGIES
from acn_cl.strategies.testing import CHECKS, StrategyFault, Subject, check_strategy, naive, run_trial

STRONGER = {"si": {"lambda_": 100.0}, "ewc": {"lambda_": 1e5}, "l2": {"lambda_": 0.1}}
"""Options with which a strategy acts visibly on a small stream."""


@cache
def subject(name):
    small = {"memory": 60} if "memory" in STRATEGIES[name].settings.model_fields else {}
    return Subject(name, small | STRONGER.get(name, {}))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_line_of_the_table_passes(name, check):
    nothing_to_check = CHECKS[check](subject(name))
    if check in ("acts", "learns", "repeats", "resumes", "heads", "memory", "precision"):
        assert nothing_to_check is None or (name, check) == ("naive", "acts")
    if check == "domains":
        assert nothing_to_check is None or name == "icarl"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("si", {"dialect": "zenke", "lambda_": 10.0}),
        ("ewc", {"mode": "online", "decay": 0.9, "fisher": "sampled", "lambda_": 1e3}),
        ("ewc", {"fisher": "empirical", "augmented": True, "lambda_": 1e3}),
        ("mas", {"each": "image"}),
        ("replay", {"balance": "reservoir", "batch": 7, "memory": 40}),
        ("der", {"balance": "class", "beta": 0.0, "memory": 40}),
    ],
)
def test_other_options_pass_too(name, options):
    variant = Subject(name, options)
    for check in ("acts", "importance", "learns", "resumes", "memory"):
        CHECKS[check](variant)


def test_der_without_weights_is_inert():
    """Its other way to be naive: a memory that no term reads is not kept either."""
    weightless = run_trial(Subject("der", {"alpha": 0.0, "beta": 0.0}).make).weights[-1]
    assert all(torch.equal(t, weightless[name]) for name, t in naive("task-incremental").weights[-1].items())


# Strategies that are wrong in one way each.


class SlowerHead(StrategyPlugin):
    """A right one: the heads' gradients are scaled."""

    moves = "the current head"
    inert = {"factor": 1.0}  # noqa: RUF012

    def __init__(self, factor=0.5):
        super().__init__()
        self.factor = factor

    def after_backward(self, strategy, **_):
        for name, parameter in strategy.model.named_parameters():
            if name.startswith("heads") and parameter.grad is not None:
                parameter.grad.mul_(self.factor)


class NeverInert(SlowerHead):
    def after_backward(self, strategy, **_):
        self.factor = min(self.factor, 0.999)
        super().after_backward(strategy)


class DoesNothing(SlowerHead):
    def after_backward(self, strategy, **_):
        pass


class Unlearns(SlowerHead):
    def after_backward(self, strategy, **_):
        for parameter in strategy.model.parameters():
            if parameter.grad is not None:
                parameter.grad.neg_()


class Unrepeatable(SlowerHead):
    calls = 0

    def after_backward(self, strategy, **_):
        Unrepeatable.calls += 1
        self.factor = 0.5 + 0.001 * (Unrepeatable.calls % 7)
        super().after_backward(strategy)


class Forgetful(SlowerHead):
    """Counts its steps, and does not save the count."""

    def __init__(self, factor=0.5):
        super().__init__(factor)
        self.steps = 0

    def after_backward(self, strategy, **_):
        self.steps += 1
        self.factor = 1 / (1 + self.steps)
        super().after_backward(strategy)


class MovesMore(SlowerHead):
    def after_backward(self, strategy, **_):
        super().after_backward(strategy)
        for parameter in strategy.model.heads.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)


class Hoards(SlowerHead):
    def __init__(self, factor=0.5):
        super().__init__(factor)
        self.hoard = {}

    def after_training_exp(self, strategy, **_):
        self.hoard[f"t{len(self.hoard)}"] = torch.zeros(5)

    def state(self):
        return super().state() | self.hoard


class NoImportance(L2):
    def importance(self):
        return [torch.zeros_like(a) for a in self.anchor]


class NegativeImportance(L2):
    def importance(self):
        return [-torch.ones_like(a) for a in self.anchor]


class Mixes(L2):
    """Not element by element: the pull is scaled by its norm over all runs of a stack."""

    def pull(self, parameters):
        pull = super().pull(parameters)
        return [p / (1 + p.norm()) for p in pull]


WRONG = {
    NeverInert: ("inert", r"expected with \{'factor': 1.0\} the weights of naive"),
    DoesNothing: ("acts", r"expected another backbone than naive's after the second experience, and they are equal"),
    Unlearns: ("learns", r"expected an accuracy above 0.60"),
    Unrepeatable: ("repeats", r"expected the same weights from the same seed, and two .* differ by up to"),
    Forgetful: ("resumes", r"going on from experience 2, epoch 0, batch 0 .* missing in state\(\)"),
    MovesMore: ("heads", r"expected the current head to move .* moved the first one's head"),
    Hoards: ("memory", r"expected a state of at most 0 numbers .* it holds 5 after experience 0"),
    NoImportance: ("importance", r"expected importances that are not zero"),
    NegativeImportance: ("importance", r"at least 0 .* the smallest is -1 after experience 0"),
    Mixes: ("stacks", r"expected the same pull on two runs stacked"),
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda c: c.__name__)
def test_a_strategy_that_is_wrong_is_caught(wrong):
    check, message = WRONG[wrong]
    with pytest.raises(StrategyFault, match=rf"{wrong.__name__}: (?s:.*){message}"):
        CHECKS[check](Subject(wrong, {}))


def test_avalanches_own_synaptic_intelligence_is_caught():
    """Four years of silence in one line: the plug-in of avalanche-lib 0.3 to 0.6 does nothing on a CPU."""
    stock = Subject("avalanche.training.plugins:SynapticIntelligencePlugin", {"si_lambda": 1e6})
    with pytest.raises(StrategyFault, match=r"expected another backbone than naive's .* they are equal"):
        CHECKS["acts"](stock)


def test_a_strategy_may_be_a_class_a_regulariser_or_a_dotted_path(monkeypatch):
    monkeypatch.setitem(sys.modules, "a_lab", sys.modules[__name__])
    said = check_strategy("a_lab:SlowerHead", factor=0.25)
    assert isinstance(Subject(SlowerHead, {}).make(), SlowerHead)
    assert said["inert"] == said["resumes"] == said["heads"] == "passed"
    assert said["importance"] == "it has no importance"
    assert isinstance(Subject(L2, {}).make(), RegulariserPlugin)
    with pytest.raises(StrategyFault, match=r"expected a plug-in or a Regulariser, and got a dict"):
        check_strategy(dict)


class Plain(SupervisedPlugin):
    """As people write them: no state, nothing declared."""

    def before_update(self, strategy, **_):
        for parameter in strategy.model.parameters():
            if parameter.grad is not None:
                parameter.grad.add_(torch.randn_like(parameter.grad), alpha=0.01)


def test_a_plain_plug_in_is_held_to_what_does_not_need_declaring():
    said = check_strategy(Plain)
    assert said["acts"] == said["repeats"] == said["learns"] == "passed"
    assert said["inert"] == "it declares no options with which it does nothing"
    assert said["resumes"].startswith("it has no state()")
    assert said["memory"] == "it declares no bound on what it keeps"


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("avalanche.training.plugins:ReplayPlugin", {"mem_size": 20}),
        ("avalanche.training.plugins:AGEMPlugin", {"patterns_per_experience": 10, "sample_size": 10}),
        ("avalanche.training.plugins:EWCPlugin", {"ewc_lambda": 1e4}),
        ("avalanche.training.plugins:MASPlugin", {"lambda_reg": 10.0}),  # its `importance` is no method
    ],
)
def test_avalanches_own_plug_ins_run_in_our_loop(path, options):
    theirs = Subject(path, options)
    assert CHECKS["acts"](theirs) is None
    assert CHECKS["learns"](theirs) is None


def test_why_gdumb_is_ours():
    """Avalanche's puts a new network into the strategy: whoever holds the old one (the suite) never sees it trained."""
    trial = run_trial(Subject("avalanche.training.plugins:GDumbPlugin", {"mem_size": 20}).make)
    assert not any(name.startswith("heads.blocks.1") for name in trial.weights[-1])


def test_why_lwf_is_ours():
    """Avalanche's asks for the answers of all heads by task labels of ``None``: only its own heads understand that."""
    with pytest.raises(TypeError, match="NoneType"):
        run_trial(Subject("avalanche.training.plugins:LwFPlugin", {}).make)
