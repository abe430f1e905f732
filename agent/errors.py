"""The errors that Wardpost raises on purpose.

    WardpostError            anything below; its text says what failed, where, and what to do
     +- ConfigError          the settings or the machine are wrong: a person must act (exit 78)
     +- Transient            the world is in the way (network, full disk, busy camera): try again later
     |   +- NoRoom           ... and what is in the way is a full disk: a person may make room
     |   +- NeedsRestart     ... and nothing in this process can cure it: a new process may
     +- Corrupt              bytes are not what they claim to be: set aside, never trusted, never fatal

An exception of any other class is a bug. A worker that meets one is restarted by its supervisor.
"""


class WardpostError(Exception):
    """Base of every deliberate error. `str(error)` is one line for the person who must act."""


class ConfigError(WardpostError):
    """Settings, or a machine, that cannot work as they are. The command line exits with 78 (EX_CONFIG)."""


class Transient(WardpostError):  # noqa: N818  (named for what it is, as in the design)
    """A condition that time or a technician may cure. The caller backs off and tries again."""


class NoRoom(Transient):
    """A disk is full. What is on it can be read."""


class Corrupt(WardpostError):  # noqa: N818
    """Data that fails its own check. The caller sets it aside and goes on without it."""


class NeedsRestart(Transient):
    """A library hangs inside this process. The supervisor leaves it, cleanly, so that systemd starts a new one."""
