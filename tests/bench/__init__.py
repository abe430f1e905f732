"""`make bench`: what Wardpost costs, each figure beside a peer or a limit measured in the same run on the same machine.

One file a figure. A bench never fails for being slow: it reports, and the reader judges by the ratio and the target.
"""
