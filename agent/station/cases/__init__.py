"""Cases: what was reported, the footage that belongs to it, and who did what with it.

states.py      which act is allowed when, and to whom (pure)
reading.py     cases as pages show them; who may see which is part of each query
desk.py        the only writer: an act is a row of the timeline and a line of the audit log, in one transaction
keeping.py     which posts are to keep which footage (pure), and the orders that make them
origin.py      what the station has of a post, in the shape in which the node's own export reads it
export.py      the evidence package of a case
packing.py     which packages wait, which one is made and how far it is, which failed and why (pure)
wishes.py      what is kept of those that were asked for, until they are there
packer.py      makes them, one after the other, on a thread of its own
"""
