"""Emergency bells at headquarters: what is shown around a press, and what posts are told to keep of it.

settings.py    [bells]: minutes, posts and limits
deciding.py    pure: which posts are near, which moment it was, who is asked to keep what
book.py        the rows of it, beside a line of the audit log
worker.py      asks; a dark post finds the order when it is back
making.py      from settings to a thread
around.py      what a person is shown around a bell: the nearest posts, their pictures, what they keep
"""
