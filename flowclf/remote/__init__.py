"""Files from elsewhere, for the zoo and for data sets: the only part of flowclf that opens a connection.

Nothing here knows what a file means, and nothing imports torch.
"""
