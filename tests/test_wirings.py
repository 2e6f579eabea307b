"""Every wiring against an independent loop over its formula, with blocks that are nothing but a random map."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from acn_cl.backbones.blocks.base import Block
from acn_cl.backbones.presets import WIRINGS
from acn_cl.backbones.wirings.base import Wiring
from acn_cl.tables import resolve

DEPTH, BATCH, TOKENS, WIDTH = 5, 2, 3, 7
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


class Twist(Block):
    """``tanh(W x)``."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH, dtype=torch.float64) / WIDTH**0.5)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return torch.tanh(x @ self.weight)


class Merged(Twist):
    contains_input = True

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 2 * x


def make(name: str) -> tuple[Wiring, list[Twist], Tensor]:
    torch.manual_seed(0)
    line = WIRINGS[name]
    wiring = resolve(line.target)(depth=DEPTH, width=WIDTH, **line.settings().model_dump()).double()
    with torch.no_grad():
        for parameter in wiring.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    blocks = [Twist() for _ in range(DEPTH)]
    return wiring, blocks, torch.randn(BATCH, TOKENS, WIDTH, dtype=torch.float64, requires_grad=True)


# The formulas of arXiv 2506.09714, each from the definition, for one sub-network at a time.


def layer_outputs(blocks: list[Twist], x0: Tensor) -> list[Tensor]:
    xs = [x0]
    for block in blocks:
        xs.append(block(xs[-1]))
    return xs


def feedforward(wiring: Wiring, blocks: list[Twist], x0: Tensor, k: int) -> Tensor:
    return layer_outputs(blocks, x0)[k]


def residual(wiring: Wiring, blocks: list[Twist], x0: Tensor, k: int) -> Tensor:
    return x0 if k == 0 else (z := residual(wiring, blocks, x0, k - 1)) + blocks[k - 1](z)


def acn(wiring: Wiring, blocks: list[Twist], x0: Tensor, k: int) -> Tensor:
    return torch.stack(layer_outputs(blocks, x0)[: k + 1]).sum(0)


def highway(wiring: Wiring, blocks: list[Twist], x0: Tensor, k: int) -> Tensor:
    if k == 0:
        return x0
    h, gate = highway(wiring, blocks, x0, k - 1), wiring.layers[k - 1]
    c = 1 / (1 + torch.exp(-(torch.einsum("bnd,ed->bne", h, gate.weight) + gate.bias)))
    return (1 - c) * h + c * blocks[k - 1](h)


def densenet(wiring: Wiring, blocks: list[Twist], x0: Tensor, k: int) -> Tensor:
    xs = [x0]
    for i in range(k):
        parts = wiring.layers[i].weight.split(WIDTH, dim=1)
        xs.append(blocks[i](sum(torch.einsum("bnd,ed->bne", x, p) for x, p in zip(xs, parts, strict=True))))
    return xs[k]


def denseformer(wiring: Wiring, blocks: list[Twist], x0: Tensor, k: int) -> Tensor:
    xs, ys = [x0], [x0]
    for i in range(k):
        xs.append(blocks[i](ys[-1]))
        ys.append(torch.einsum("jbnd,j->bnd", torch.stack(xs), wiring.layers[i].weight))
    return ys[k]


FORMULAS: dict[str, Callable[[Wiring, list[Twist], Tensor, int], Tensor]] = {
    "feedforward": feedforward,
    "residual": residual,
    "acn": acn,
    "acn-dg": acn,
    "highway": highway,
    "densenet": densenet,
    "denseformer": denseformer,
}


def test_every_wiring_in_the_table_has_a_formula_here() -> None:
    assert FORMULAS.keys() == WIRINGS.keys()


@pytest.mark.parametrize("name", WIRINGS)
def test_states_equal_the_formula_for_every_sub_network(name: str) -> None:
    wiring, blocks, x0 = make(name)
    states = list(wiring.states(x0, blocks))
    assert len(states) == DEPTH + 1
    for k, state in enumerate(states):
        torch.testing.assert_close(state, FORMULAS[name](wiring, blocks, x0, k), **CLOSE)


@pytest.mark.parametrize("name", WIRINGS)
def test_states_are_lazy(name: str) -> None:
    wiring, blocks, x0 = make(name)
    for k, _ in enumerate(wiring.states(x0, blocks)):
        assert [block.calls for block in blocks] == [1] * k + [0] * (DEPTH - k)


@pytest.mark.parametrize("name", [name for name in WIRINGS if name != "acn-dg"])
def test_gradients_equal_those_of_the_formula(name: str) -> None:
    wiring, blocks, x0 = make(name)
    parameters = [x0, *wiring.parameters(), *(block.weight for block in blocks)]
    *_, last = wiring.states(x0, blocks)
    ours = torch.autograd.grad(last.sin().sum(), parameters)
    theirs = torch.autograd.grad(FORMULAS[name](wiring, blocks, x0, DEPTH).sin().sum(), parameters)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, **CLOSE)


def test_direct_gradient_acn_is_acn_forward_bit_for_bit() -> None:
    (acn_wiring, blocks, x0), (direct, _, _) = make("acn"), make("acn-dg")
    for a, b in zip(acn_wiring.states(x0, blocks), direct.states(x0, blocks), strict=True):
        assert torch.equal(a, b)


def test_direct_gradient_acn_learns_through_the_own_connection_only() -> None:
    wiring, blocks, x0 = make("acn-dg")
    *_, y = wiring.states(x0, blocks)
    ours = torch.autograd.grad(y.sin().sum(), [x0, *(block.weight for block in blocks)])
    upstream = y.detach().cos()  # d sin(y).sum() / dy, the same at every summand
    xs = [x.detach() for x in layer_outputs(blocks, x0)]
    torch.testing.assert_close(ours[0], upstream, **CLOSE)
    for i in range(DEPTH):
        slope = (1 - xs[i + 1] ** 2) * upstream  # through tanh, by hand
        torch.testing.assert_close(ours[i + 1], torch.einsum("bnd,bne->de", xs[i], slope), **CLOSE)


def test_residual_adds_no_input_to_a_block_that_holds_it() -> None:
    wiring, _, x0 = make("residual")
    blocks = [Merged() for _ in range(DEPTH)]
    for k, state in enumerate(wiring.states(x0, blocks)):
        torch.testing.assert_close(state, layer_outputs(blocks, x0)[k], **CLOSE)


def test_only_residual_keeps_inner_skips() -> None:
    assert [name for name in WIRINGS if make(name)[0].inner_skips] == ["residual"]


@pytest.mark.parametrize("name", WIRINGS)
def test_what_a_wiring_learns_belongs_to_its_layers(name: str) -> None:
    wiring, _, _ = make(name)
    assert len(wiring.layers) in (0, DEPTH)
    assert all(key.startswith("layers.") for key, _ in wiring.named_parameters())


def test_highway_begins_by_carrying() -> None:
    line = WIRINGS["highway"]
    wiring = resolve(line.target)(depth=DEPTH, width=WIDTH, **line.settings().model_dump())
    gates = [torch.sigmoid(gate(torch.zeros(WIDTH))) for gate in wiring.layers]
    torch.testing.assert_close(torch.stack(gates), torch.full((DEPTH, WIDTH), 0.1192029))  # σ(-2)


def test_denseformer_begins_as_feedforward() -> None:
    line = WIRINGS["denseformer"]
    wiring = resolve(line.target)(depth=DEPTH, width=WIDTH, **line.settings().model_dump()).double()
    _, blocks, x0 = make("denseformer")
    for k, state in enumerate(wiring.states(x0, blocks)):
        torch.testing.assert_close(state, layer_outputs(blocks, x0)[k], **CLOSE)
