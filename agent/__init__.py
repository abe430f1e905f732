"""Wardpost: an unattended security-camera post, and the station that receives what it sees."""

__version__ = "0.1.0"
