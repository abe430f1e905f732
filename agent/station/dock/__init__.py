"""`wardpost dock`: footage from a node's card, or from a folder that was copied from one, into the archive.

card.py      reads what somebody has plugged in, and believes nothing of it
intake.py    each file held against the ledgers, into the archive, put on record
command.py   wired, with the report
naming.py    which files the record names (pure)
dockings.py  all of them: put on record, and read for a page
"""
