"""Search for past incidents.

meaning.py  what an event says about its incident, for a search; words without case and accents. Pure
query.py    what was asked for: from the fields of an address to a query, or to what is wrong with it. Pure
keeper.py   keeps the table `incident` up with the store's events
finder.py   looks in it, newest first, a bounded part at a time
"""
