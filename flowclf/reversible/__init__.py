"""Memory-saving training: store a graph's outputs only, and recompute its activations in the backward pass.

The backward pass goes through the nodes in reverse order; it inverts each node to recover its input, and differentiates it before
the next. So memory for activations does not grow with depth. Time grows by one evaluation of each subnet for flowclf's couplings,
which share one between the inverse and the gradient, and by two for third-party nodes.

Gradients equal those with stored activations. Random numbers (dropout), training flags, autocast and subnet precision are those of
the forward pass; batch norm updates its statistics once per step. Forward hooks on modules inside the graph, however, run again in
the backward pass. For some nodes the input, one tensor, is stored instead of recomputed:

- A node whose inverse is approximate. The attribute ``exact_inverse`` of a node, True or False, declares this; flowclf's nodes have
  it. FrEIA's ``IResNetLayer``, ``OrthogonalTransform``, ``InvertibleSigmoid``, ``InvAutoFC``, ``InvAutoConv2D`` and
  ``GaussianMixtureModel`` count as approximate. Any other node is measured, in the current precision, on the first batch and every
  256 runs; if its error exceeds rounding, its input is stored from then on.
- A third-party node that draws random numbers, or changes a buffer other than a norm's statistics.
- A node that computes in half precision, as some do under autocast: rounding loses what the inverse would need.
- The first of every ``keep_every`` nodes, if set: errors of inverses add up over many badly conditioned nodes.
"""

from flowclf.reversible.api import Recompute, execute, recompute

__all__ = ["Recompute", "execute", "recompute"]
