"""Nodes: FrEIA ``InvertibleModule``s for any ``FrEIA.framework.GraphINN``."""

from flowclf.nodes.actnorm import ActNorm
from flowclf.nodes.base import BijectiveNode, FlowNode, LogitPlace
from flowclf.nodes.conditional import set_subnet_dtype
from flowclf.nodes.conv1x1 import InvertibleConv1x1
from flowclf.nodes.couplings import AdditiveCoupling, AffineCoupling, Coupling
from flowclf.nodes.dct import DCT2d, dct2d, inverse_dct2d
from flowclf.nodes.factor_out import FactorOut
from flowclf.nodes.gaussianization import Gaussianization, LogitGaussianization
from flowclf.nodes.initialization import DataInitializedNode, initialize
from flowclf.nodes.logit_fold import LogitFold
from flowclf.nodes.logit_mixing import LogitActNorm, LogitConv1x1
from flowclf.nodes.logits import LogitCoupling, LogitReadout
from flowclf.nodes.nflows_adapter import NflowsTransform
from flowclf.nodes.permutation import Permutation
from flowclf.nodes.rational_quadratic import RationalQuadratic
from flowclf.nodes.split_head import SplitHead
from flowclf.nodes.squeeze import Squeeze
from flowclf.nodes.transformers import Additive, Affine, Transformer

__all__ = [
    "ActNorm",
    "Additive",
    "AdditiveCoupling",
    "Affine",
    "AffineCoupling",
    "BijectiveNode",
    "Coupling",
    "DCT2d",
    "DataInitializedNode",
    "FactorOut",
    "FlowNode",
    "Gaussianization",
    "InvertibleConv1x1",
    "LogitActNorm",
    "LogitConv1x1",
    "LogitCoupling",
    "LogitFold",
    "LogitGaussianization",
    "LogitPlace",
    "LogitReadout",
    "NflowsTransform",
    "Permutation",
    "RationalQuadratic",
    "SplitHead",
    "Squeeze",
    "Transformer",
    "dct2d",
    "initialize",
    "inverse_dct2d",
    "set_subnet_dtype",
]
