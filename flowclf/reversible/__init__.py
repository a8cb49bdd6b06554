"""Training that keeps a graph's outputs only and computes its activations again on the way back.

The graph's inverse gives them: the backward pass goes through the nodes in reverse, inverts each, and differentiates it before it
goes on. So memory for activations does not grow with depth; time grows by one evaluation of each subnet for flowclf's
couplings, which take the inverse and the gradient from the same one, and by two for nodes of other origin. The first run makes
the process keep the memory that it frees, see :mod:`flowclf.host_memory`.

Gradients are those that stored activations give. Random numbers (dropout), training flags, autocast and subnet precision are those
of the forward pass; batch norm's statistics move once a step; forward hooks on modules inside the graph, however, are
called again on the way back. What must not be inverted keeps its input, one tensor, and is differentiated from there:

- a node whose inverse is approximate. A node says so with the attribute ``exact_inverse``, True or False, as flowclf's own do. Of
  FrEIA's, ``IResNetLayer``, ``OrthogonalTransform``, ``InvertibleSigmoid``, ``InvAutoFC``, ``InvAutoConv2D`` and
  ``GaussianMixtureModel`` count as approximate. Any other is measured, in the precision at hand, on the first batch and every 256
  runs: an error beyond rounding keeps its input from then on.
- a node of other origin that draws random numbers, or changes a buffer other than a norm's statistics.
- a node that works in half precision, as some do under autocast: rounding lost what the inverse would need.
- the first of every ``keep_every`` nodes, if one asks for it: errors of inverses add up over many badly conditioned nodes.
"""

from flowclf.reversible.api import Recompute, execute, recompute

__all__ = ["Recompute", "execute", "recompute"]
