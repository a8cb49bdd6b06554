"""Memory-saving training: store a graph's outputs only, and recompute its activations in the backward pass.

The backward pass inverts each node, last node first, to recover its input, and differentiates it. So memory for activations does
not grow with depth. Time grows by one evaluation of each subnet for flowclf's couplings, and by two for third-party nodes.

Gradients equal those with stored activations. Random numbers (dropout), training flags, autocast and subnet precision are those of
the forward pass; batch norm updates its statistics once per step. Forward hooks inside the graph run again in the backward pass.
For some nodes the input is stored instead of recomputed:

- A node whose inverse is approximate, as its attribute ``exact_inverse`` declares, see :mod:`flowclf.reversible.exactness`. A node
  that declares nothing is measured on the first batch and every 256 runs.
- A third-party node that draws random numbers, or changes a buffer other than a norm's statistics.
- A node that computes in half precision, as some do under autocast.
- The first of every ``keep_every`` nodes, if set: errors of inverses add up over many badly conditioned nodes.
"""

from flowclf.reversible.api import Recompute, execute, recompute

__all__ = ["Recompute", "execute", "recompute"]
