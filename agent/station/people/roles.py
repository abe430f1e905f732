"""Roles, and the part of the site that a person may see. Pure.

A role says what somebody may do; a scope says at which posts. Every query for a person's page carries the scope, so
that a page which forgets to ask shows nothing, instead of everything.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from agent.errors import ConfigError

LOGIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
POST = re.compile(r"[a-z0-9-]{1,32}")
NAME_CHARS_MAX = 60
HOSTED_MAX = 4  # posts at one house
POSTS_MAX = 1000
"""Posts in one person's scope; more than that is the whole site."""


class Role(StrEnum):
    """What somebody may do. Which page takes which roles stands in the route table (agent/station/web/routes.py)."""

    OPERATOR = "operator"  # answers alerts
    SUPERVISOR = "supervisor"  # ... and hands them on to others
    SCHOOL = "school"  # sees and answers those of its own posts
    TECHNICIAN = "technician"  # keeps the posts running: no alerts, no pictures
    AUDITOR = "auditor"  # sees everything, changes nothing
    ADMIN = "admin"  # manages the station: no alerts, no pictures
    HOUSEHOLD = "household"  # hosts a post: sees who viewed its camera, nothing else


@dataclass(frozen=True, slots=True)
class Scope:
    """At which posts. `whole_site` counts for posts that do not exist yet, too."""

    whole_site: bool
    posts: frozenset[str] = frozenset()

    def covers(self, node: str) -> bool:
        """Whether it holds this post."""
        return self.whole_site or node in self.posts

    def covers_all(self, nodes: Iterable[str]) -> bool:
        """Whether it holds each of these."""
        return all(map(self.covers, nodes))


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with an account."""

    login: str
    name: str  # as colleagues know them; may be the login
    role: Role
    scope: Scope
    disabled: bool = False


def check_login(text: str) -> str:
    """A login as it is kept. Raises ConfigError."""
    if not LOGIN.fullmatch(text):
        raise ConfigError(
            f"login {text[:40]!r}: 1 to 32 lower-case letters, digits, dots, hyphens; the first a letter or digit"
        )
    return text


def check_name(text: str) -> str:
    """A person's name as it is kept: NFC, one line. Raises ConfigError."""
    name = unicodedata.normalize("NFC", text).strip()
    if not name or len(name) > NAME_CHARS_MAX or not name.isprintable():
        raise ConfigError(f"name {text[:40]!r}: 1 to {NAME_CHARS_MAX} printable characters")
    return name


def check_role(text: str) -> Role:
    """Raises ConfigError."""
    try:
        return Role(text)
    except ValueError:
        raise ConfigError(f"role {text[:40]!r}: one of {', '.join(Role)}") from None


def scope_of(role: Role, posts: Iterable[str]) -> Scope:
    """The scope of a person for whom these posts were named; none: the whole site, but not for a school or household.

    Raises ConfigError.
    """
    found = frozenset(posts)
    for post in found:
        if not POST.fullmatch(post):
            raise ConfigError(f"post {post[:40]!r}: a post's id is 1 to 32 lower-case letters, digits and hyphens")
    if role is Role.SCHOOL and not found:
        raise ConfigError("a school sees its own posts only: name them with --post")
    if role is Role.HOUSEHOLD and not 0 < len(found) <= HOSTED_MAX:
        raise ConfigError(f"a household sees who viewed the posts it hosts: name 1 to {HOSTED_MAX} of them with --post")
    if len(found) > POSTS_MAX:
        raise ConfigError(f"{len(found)} posts; at most {POSTS_MAX} can be named, more is the whole site")
    return Scope(whole_site=not found, posts=found)
