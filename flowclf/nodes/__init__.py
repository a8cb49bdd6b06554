"""Nodes: FrEIA ``InvertibleModule``s, one small file each, that work in anyone's ``FrEIA.framework.GraphINN``."""

from flowclf.nodes.actnorm import ActNorm, initialize
from flowclf.nodes.base import BijectiveNode
from flowclf.nodes.conv1x1 import InvertibleConv1x1
from flowclf.nodes.couplings import AdditiveCoupling, AffineCoupling, set_subnet_dtype
from flowclf.nodes.dct import DCT2d, dct2d, inverse_dct2d
from flowclf.nodes.factor_out import FactorOut
from flowclf.nodes.logit_coupling import LogitCoupling
from flowclf.nodes.logit_readout import LogitReadout
from flowclf.nodes.nflows_adapter import NflowsTransform
from flowclf.nodes.permutation import Permutation
from flowclf.nodes.split_head import SplitHead
from flowclf.nodes.squeeze import Squeeze

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "BijectiveNode",
    "DCT2d",
    "FactorOut",
    "InvertibleConv1x1",
    "LogitCoupling",
    "LogitReadout",
    "NflowsTransform",
    "Permutation",
    "SplitHead",
    "Squeeze",
    "dct2d",
    "initialize",
    "inverse_dct2d",
    "set_subnet_dtype",
]
