"""Inspection: what to look at this week, drawn so that it can be repeated; and what a period comes to, in figures.

sample.py      the draw (pure)
report.py      the figures and what they mean (pure)
table.py       the same as CSV and JSON (pure)
drawn.py       what a draw has come to, apart from what it was drawn from (pure)
reading.py     what both are made of, out of the store
views.py       who saw what, out of the audit log
desk.py        the only writer: draws and results, each with a line on the audit log
"""
