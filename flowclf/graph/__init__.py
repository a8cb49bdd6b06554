"""Graphs: FrEIA ``GraphINN``s from lists of node specs, checked, executed, described, and with a stream in fixed point."""

from flowclf.graph.check import Graph, checked_graph, head_of, modules_by_name, readout_of
from flowclf.graph.describe import NodeRow, describe_graph, graph_from_description, node_rows, parameter_count
from flowclf.graph.execute import NodeSet, after_the_logits, execute
from flowclf.graph.specs import Specs, build_graph
from flowclf.graph.stream import GridPeak, Stream, grid_peak, set_stream

__all__ = [
    "Graph",
    "GridPeak",
    "NodeRow",
    "NodeSet",
    "Specs",
    "Stream",
    "after_the_logits",
    "build_graph",
    "checked_graph",
    "describe_graph",
    "execute",
    "graph_from_description",
    "grid_peak",
    "head_of",
    "modules_by_name",
    "node_rows",
    "parameter_count",
    "readout_of",
    "set_stream",
]
