"""How every backbone starts: one scheme, drawn from torch's global generator (the caller seeds it).

=====================  ==================================================================================
linear maps            Xavier uniform weights, zero biases (timm's Mixer and ViT, torchvision's ViT MLP)
patch embedding        normal of variance 1 / fan-in, cut at two standard deviations of it; zero bias
positions              normal, standard deviation 0.02
class token            zero
LayerNorm              weight 1, bias 0
highway gate's bias    ``gate_bias`` (below 0)
DenseFormer's weights  1 for the newest output, 0 for the others
=====================  ==================================================================================

Biases start at zero where timm and torchvision draw them with a standard deviation of 1e-6; no result tells the two
apart.
"""

from torch import nn


def linear(fan_in: int, fan_out: int, *, bias: bool = True) -> nn.Linear:
    """A linear map from ``fan_in`` to ``fan_out`` features, initialised as the table above says."""
    made = nn.Linear(fan_in, fan_out, bias=bias)
    nn.init.xavier_uniform_(made.weight)
    if bias:
        nn.init.zeros_(made.bias)
    return made
