"""Footage at the desk: archived originals, played as they are, and what is known of the time in which there are none.

playlist.py   pure: archived files and a range -> an HLS media playlist (RFC 8216), without re-encoding
shelf.py      what lies in the archive, and where its fragments are; bytes by id and range
told.py       what the ledger lines at the station tell of a post, as a Catalog of agent.recording
"""
