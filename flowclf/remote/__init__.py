"""Downloads for the zoo and for data sets: the only part of flowclf that opens a connection. Does not import torch."""
