"""The `wardpost` command. Each subcommand imports what it needs when it runs, so that `--help` is quick anywhere.

Exit codes: 0 done; 1 the world was in the way; 2 the command line is wrong; 70 a bug; 78 settings or machine are wrong
(sysexits.h: EX_SOFTWARE, EX_CONFIG); 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent import __version__
from agent.errors import ConfigError, Corrupt, WardpostError

if TYPE_CHECKING:
    from agent.remote import Announced
    from agent.replay import ReplaySettings
    from agent.station.main import StationSettings

EX_CONFIG = 78
NODE_CONFIG = Path("/etc/wardpost/node.toml")
STATION_CONFIG = Path("/etc/wardpost/station.toml")
_DISK_SAYS_NO = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
_STATION_LIBRARIES = ("sqlalchemy", "alembic", "pg8000", "starlette", "uvicorn", "jinja2", "argon2", "obstore")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Whatever the input, the answer is a line that a person can act on, never a traceback."""
    args = parser().parse_args(argv)
    try:
        code = _run_command(args)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, not at exit: a full disk or a reader that has gone is answered below
    except ConfigError as error:
        print(f"wardpost: {error}", file=sys.stderr)
        return EX_CONFIG
    except WardpostError as error:
        print(f"wardpost: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone (`wardpost watch | head`): not an error, and not worth a traceback at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in _DISK_SAYS_NO:
            raise
        print(f"wardpost: the output cannot be written: {error.strerror}; make room and try again", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _run_command(args: argparse.Namespace) -> int:
    try:
        code: int = args.run(args)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _STATION_LIBRARIES:
            raise
        raise ConfigError(f"{error.name} is missing: a station needs pip install 'wardpost[station]'") from None
    return code


def parser() -> argparse.ArgumentParser:  # noqa: PLR0915  (a list of commands)
    """All commands and options. tests/unit/test_docs.py holds the README against it."""
    top = argparse.ArgumentParser(prog="wardpost", description="An unattended security-camera post, and its station.")
    top.add_argument("--version", action="version", version=f"wardpost {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="run the node: record, watch, report")
    _config(run, NODE_CONFIG)
    run.set_defaults(run=_run)

    check = commands.add_parser("check", help="list everything that is wrong with a configuration and its machine")
    _config(check, NODE_CONFIG)
    check.set_defaults(run=_check)

    selftest = commands.add_parser("selftest", help="prove each part of the node by using it once")
    _config(selftest, NODE_CONFIG)
    selftest.set_defaults(run=_selftest)

    _state(commands)
    footage = commands.add_parser("footage", help="extract a playable MP4 by time range, without re-encoding")
    _config(footage, NODE_CONFIG)
    footage.add_argument("--from", dest="start", required=True, metavar="TIME", help="2026-11-21T14:00, or with +07:00")
    footage.add_argument("--to", dest="end", required=True, metavar="TIME")
    footage.add_argument("-o", dest="output", required=True, type=Path, metavar="FILE")
    footage.add_argument("--key", type=Path, metavar="FILE", help="the station's private key, for sealed footage")
    footage.add_argument("--json", action="store_true", help="print the coverage as JSON")
    footage.set_defaults(run=_footage)

    _account(commands)
    _evidence(commands)
    _eyes(commands)
    _setup_page_command(commands)
    _release_commands(commands)
    _sites(commands)
    _provision_command(commands)
    _card(commands)
    enrol = commands.add_parser("enrol", help="on the node: get its certificate by the one-time claim of its card")
    _config(enrol, NODE_CONFIG)
    enrol.add_argument("--wait-s", type=float, default=0.0, metavar="S", help="give up after so long; default: never")
    enrol.set_defaults(run=_enrol)

    station = commands.add_parser("station", help="run the station: receive, store, acknowledge")
    _config(station, STATION_CONFIG)
    station.set_defaults(run=_station)

    _people_commands(commands)
    _outward_commands(commands)
    _remote(commands)
    _rollout_command(commands)
    watch = commands.add_parser("watch", help="print alerts as the station stores them")
    _config(watch, STATION_CONFIG)
    watch.add_argument("--json", action="store_true", help="one JSON object per event")
    watch.add_argument("--all", action="store_true", help="begin with what is already stored")
    watch.set_defaults(run=_watch)

    contract = commands.add_parser("contract", help="print the wire contract as AsyncAPI 3")
    contract.set_defaults(run=_contract)

    demo = commands.add_parser("demo", help="a node, a broker and a station on real footage, with a cut and a crash")
    demo.add_argument("--camera", metavar="URL", help="your own camera: rtsp://..., /dev/video0, or a file")
    demo.add_argument("--out", type=Path, default=Path("demo-out"), metavar="DIR", help="where everything is left")
    demo.set_defaults(run=_demo)
    return top


def _state(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    doctor = commands.add_parser("doctor", help="what is wrong with this post now, and what to do about it")
    doctor.add_argument(
        "--config", type=Path, metavar="F", help=f"default: {NODE_CONFIG}, with --node {STATION_CONFIG}"
    )
    doctor.add_argument(
        "--node", metavar="NODE", help="at a station: asks that post; tells what is known of a dark one"
    )
    doctor.add_argument("--wait-s", type=float, default=20.0, metavar="S", help="with --node: for an answer: 20")
    doctor.add_argument("--json", action="store_true", help="print it as JSON")
    doctor.set_defaults(run=_doctor)

    status = commands.add_parser("status", help="what the running node says of itself, as JSON")
    _config(status, NODE_CONFIG)
    status.set_defaults(run=_status)


def _posts_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    posts = commands.add_parser("posts", help="at a station: its posts, why they are dark, and what is to be done")
    _config(posts, STATION_CONFIG)
    posts.add_argument("--node", metavar="NODE", help="one post, with all that speaks for why it is dark")
    posts.add_argument("--to-do", action="store_true", help="what somebody must do, by trips, with what to bring")
    posts.add_argument("--by-cost", action="store_true", help="the posts that cost most upkeep first")
    posts.add_argument("--json", action="store_true", help="print it as JSON")
    posts.set_defaults(run=_posts)


def _card(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    flash = commands.add_parser("flash", help="write a node's kit onto a stock card or image, and read it back")
    flash.add_argument("target", type=Path, metavar="IMAGE|DEVICE", help="image of a card, or a reader: /dev/sdb")
    flash.add_argument("node", metavar="NODE", help="as it was provisioned")
    flash.add_argument("--site", required=True, type=Path, metavar="DIR", help="made by `wardpost site init`")
    flash.add_argument("--bundle", type=Path, metavar="DIR", help="made by `wardpost bundle`: the agent, for offline")
    flash.add_argument("--image", type=Path, metavar="STOCK.img", help="write this stock image first (.img or .img.xz)")
    flash.add_argument("--yes", action="store_true", help="overwrite a card without asking")
    flash.set_defaults(run=_flash)

    bundle = commands.add_parser("bundle", help="collect everything that a post installs at its first boot, offline")
    bundle.add_argument("-o", dest="output", required=True, type=Path, metavar="DIR")
    bundle.add_argument("--arch", default="aarch64", metavar="A", help="aarch64 (default) or x86_64")
    bundle.add_argument("--python", default="3.13", metavar="V", help="3.13 (Trixie, default) or 3.11 (Bookworm)")
    bundle.add_argument("--source", type=Path, default=Path(), metavar="DIR", help="a checkout; default: this folder")
    bundle.set_defaults(run=_bundle)


def _outward_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    told = commands.add_parser("outward", help="at a station: what it tells others, and what it could not deliver")
    _config(told, STATION_CONFIG)
    told.add_argument("--json", action="store_true", help="print it as JSON")
    told.set_defaults(run=_outward)
    token = commands.add_parser("token", help="at a station: programs that may fetch feeds, each by a token of its own")
    actions = token.add_subparsers(title="actions", metavar="ACTION", required=True)
    texts = {"add": "a new token, told this once", "list": "all that were given out", "revoke": "refuse it from now on"}
    for name, text in texts.items():
        one = actions.add_parser(name, help=text)
        _config(one, STATION_CONFIG)
        one.set_defaults(run=_token, action=name, name="", purpose="", json=False)
        if name == "list":
            one.add_argument("--json", action="store_true", help="print it as JSON")
            continue
        one.add_argument("name", metavar="NAME")
        if name == "add":
            one.add_argument("--for", dest="purpose", required=True, metavar="PURPOSE", help="cap, metrics, events")


def _outward(args: argparse.Namespace) -> int:
    from agent.clock import SystemClock
    from agent.config import load
    from agent.station.main import StationSettings
    from agent.station.outward.command import show
    from agent.station.outward.settings import OutwardSettings

    settings = load(args.config, StationSettings)
    desk, told = settings.station, settings.outward or OutwardSettings()
    return show(told, data=desk.data, database=desk.database, as_json=args.json, clock=SystemClock(), out=print)


def _token(args: argparse.Namespace) -> int:
    from agent.clock import SystemClock
    from agent.config import load
    from agent.station.main import StationSettings
    from agent.station.outward.command import token

    desk = load(args.config, StationSettings).station
    return token(
        args.action,
        data=desk.data,
        database=desk.database,
        site=desk.site,
        station=desk.id,
        name=args.name,
        purpose=args.purpose,
        as_json=args.json,
        clock=SystemClock(),
        out=print,
    )


def _people_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    user = commands.add_parser("user", help="at a station: who may log in to its pages, as what, and for which posts")
    actions = user.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, text in _USER_ACTS.items():
        one = actions.add_parser(name, help=text)
        _config(one, STATION_CONFIG)
        one.set_defaults(run=_user, action=name)
        if name == "list":
            one.add_argument("--json", action="store_true", help="print it as JSON")
            continue
        one.add_argument("login", metavar="LOGIN")
        if name == "add":
            one.add_argument("--name", default="", metavar="TEXT", help="as colleagues know them; default: the login")
            one.add_argument("--role", required=True, metavar="ROLE", help=_ROLES)
        if name == "role":
            one.add_argument("role", metavar="ROLE", help=_ROLES)
        if name in ("add", "role"):
            one.add_argument("--post", action="append", default=[], metavar="NODE", help="only these; default: all")
        if name in ("add", "oidc"):
            one.add_argument("--oidc-subject", default="", metavar="SUBJECT", help="who that is at the provider")
            one.add_argument("--oidc-email", default="", metavar="ADDRESS", help="or an e-mail that it has verified")
        if name == "oidc":
            one.add_argument("--off", action="store_true", help="nobody there any more")
        if name in ("add", "passwd"):
            one.add_argument("--password-file", type=Path, metavar="F", help="its first line; default: it is asked for")
    redraw = commands.add_parser(
        "redraw", help="draw the sample of a weekly inspection again: whether the same comes out"
    )
    redraw.add_argument("file", type=Path, metavar="FILE", help="the whole draw, as the page Inspection gives it")
    redraw.set_defaults(run=_redraw)
    trail = commands.add_parser("trail", help="at a station: the audit log of who viewed and did what on its pages")
    acts = trail.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = acts.add_parser("check", help="whether it is whole, and as it was written")
    check.add_argument("--json", action="store_true", help="print it as JSON")
    export = acts.add_parser("export", help="all of it into one file, for `wardpost verify`")
    export.add_argument("-o", dest="output", required=True, type=Path, metavar="FILE")
    for one, name in ((check, "check"), (export, "export")):
        _config(one, STATION_CONFIG)
        one.set_defaults(run=_trail, action=name)


_ROLES = "operator, supervisor, school, technician, auditor, admin"
_USER_ACTS = {
    "add": "a new person",
    "list": "everybody, with role and posts",
    "passwd": "another password; ends their sessions",
    "role": "another role, or other posts; ends their sessions",
    "oidc": "who that is at the OpenID Connect provider; ends their sessions",
    "disable": "shut somebody out, at once",
    "enable": "let somebody in again",
}


def _user(args: argparse.Namespace) -> int:
    from agent.config import load
    from agent.station.main import StationSettings
    from agent.station.people import command
    from agent.station.people.oidc.links import link_of

    settings = load(args.config, StationSettings)
    desk, oidc = settings.station, None if settings.web is None else settings.web.oidc
    issuer = "" if oidc is None else oidc.issuer
    match args.action:
        case "add":
            asked = {"name": args.name, "role": args.role, "posts": args.post, "password_file": args.password_file}
            by_provider = bool(args.oidc_subject or args.oidc_email)
            link = link_of(args.oidc_subject, args.oidc_email) if by_provider else None
            return command.add(desk, args.login, **asked, link=link, issuer=issuer, out=print)
        case "oidc":
            if args.off and (args.oidc_subject or args.oidc_email):
                raise ConfigError("--off, or who it is: not both")
            link = None if args.off else link_of(args.oidc_subject, args.oidc_email)
            return command.set_link(desk, args.login, link, issuer=issuer, out=print)
        case "list":
            return command.show(desk, issuer=issuer, as_json=args.json, out=print)
        case "passwd":
            return command.passwd(desk, args.login, password_file=args.password_file, out=print)
        case "role":
            return command.set_role(desk, args.login, args.role, posts=args.post, out=print)
    return command.set_disabled(desk, args.login, disabled=args.action == "disable", out=print)


def _redraw(args: argparse.Namespace) -> int:
    from agent.station.inspection.redraw import redraw

    return redraw(args.file, out=print)


def _trail(args: argparse.Namespace) -> int:
    from agent.config import load
    from agent.station.main import StationSettings
    from agent.station.people import command

    desk = load(args.config, StationSettings).station
    if args.action == "check":
        return command.check(desk, as_json=args.json, out=print)
    return command.export(desk, args.output, out=print)


def _remote(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    send = commands.add_parser("send", help="at a station: have nodes send their footage of a time range, dark or not")
    send.add_argument("nodes", nargs="+", metavar="NODE")
    _config(send, STATION_CONFIG)
    send.add_argument("--from", dest="start", metavar="TIME", help="like 2026-11-21T14:00:00+07:00")
    send.add_argument("--to", dest="end", metavar="TIME", help="a day after that at most; may lie in the future")
    send.add_argument("--reason", default="", metavar="TEXT", help="why; it goes on the ledger")
    send.add_argument("--list", action="store_true", help="what was asked for, how far it is, what is here")
    _answer_options(send)
    send.set_defaults(run=_send)
    dock = commands.add_parser("dock", help="at a station: take in the footage on a node's card, or a copy of it")
    dock.add_argument("folder", type=Path, metavar="FOLDER", help="the node's data folder: segments/ and ledger/ in it")
    _config(dock, STATION_CONFIG)
    dock.add_argument("--custodian", required=True, metavar="NAME", help="who had the card until now")
    dock.add_argument("--node", metavar="NODE", help="whose card it is (default: as its files say)")
    dock.add_argument("--json", action="store_true", help="print the report as JSON")
    dock.set_defaults(run=_dock)

    update = commands.add_parser("update", help="at a station: have nodes install a release, and tell what they answer")
    update.add_argument("nodes", nargs="+", metavar="NODE")
    _config(update, STATION_CONFIG)
    _bundle_options(update)
    _answer_options(update)
    update.set_defaults(run=_update)

    one = commands.add_parser("configure", help="at a station: settings that nodes are to have, beside those they have")
    one.add_argument("node", metavar="NODE", nargs="?", help="default: all; without --file or --set only shown")
    _config(one, STATION_CONFIG)
    one.add_argument("--file", type=Path, metavar="node.toml", help="the whole file; default: what the node has")
    one.add_argument(
        "--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="one value in it: vision.score_min=0.5"
    )
    one.add_argument("--revision", type=int, metavar="N", help="default: one more than any before")
    _answer_options(one)
    one.set_defaults(run=_configure)

    signal = commands.add_parser("signal", help="at a station: siren or lamp of a post, for a time and for a reason")
    signal.add_argument("node", metavar="NODE")
    signal.add_argument("output", choices=("siren", "lamp"))
    signal.add_argument("seconds", type=float, metavar="SECONDS", help="0 ends it")
    _config(signal, STATION_CONFIG)
    signal.add_argument("--reason", default="", metavar="TEXT", help="why; it goes on the post's ledger")
    signal.add_argument("--by", default="", metavar="NAME", help="who; default: who is logged in")
    signal.add_argument("--wait-s", type=float, default=20.0, metavar="S", help="for an answer: 20")
    signal.add_argument("--json", action="store_true", help="print the answer as JSON")
    signal.set_defaults(run=_signal)
    _posts_command(commands)


def _rollout_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    rollout = commands.add_parser("rollout", help="at a station: a release over the fleet, ring by ring")
    actions = rollout.add_subparsers(title="actions", metavar="ACTION", required=True)
    start = actions.add_parser("start", help="begin: the first ring is told at once")
    _bundle_options(start)
    start.add_argument("--rings", required=True, type=Path, metavar="rings.toml", help="who comes when, and the limits")
    for one, name in ((start, "start"), *((actions.add_parser(n, help=h), n) for n, h in _ROLLOUT_ACTS.items())):
        _config(one, STATION_CONFIG)
        one.add_argument("--json", action="store_true", help="print it as JSON")
        one.set_defaults(run=_rollout, action=name)


_ROLLOUT_ACTS = {
    "status": "how far it has come, post by post, and its last steps",
    "pause": "tell nobody until it is resumed",
    "resume": "go on, after a stop too; failures until now are excused",
    "stop": "end it; posts that have the release keep it",
}


def _rollout(args: argparse.Namespace) -> int:
    from agent import fleet
    from agent.clock import SystemClock
    from agent.config import load
    from agent.station.main import StationSettings

    settings = load(args.config, StationSettings)
    if args.action == "status":
        return fleet.status(settings, as_json=args.json, out=print)
    clock = SystemClock()
    if args.action == "start":
        bundle = _announced(settings, args)
        return fleet.start(settings, bundle, rings_file=args.rings, clock=clock, as_json=args.json, out=_line)
    return fleet.act(settings, args.action, clock=clock, as_json=args.json, out=_line)


def _bundle_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--bundle", type=Path, metavar="FILE.zip", help="the release; its figures are read from it")
    command.add_argument(
        "--url", required=True, metavar="URL", help="where nodes get that file: https://..., or a path on a stick"
    )
    command.add_argument("--key", default="", metavar="PUB", help="public release key; default: of station.register")
    command.add_argument("--number", type=int, metavar="N", help="without --bundle: as `wardpost release make` told")
    command.add_argument("--bytes", type=int, metavar="B", help="likewise")
    command.add_argument("--sha256", default="", metavar="HEX", help="likewise")


def _dock(args: argparse.Namespace) -> int:
    from agent.clock import SystemClock
    from agent.config import load
    from agent.station.dock.command import dock
    from agent.station.main import StationSettings

    return dock(
        load(args.config, StationSettings),
        args.folder,
        custodian=args.custodian,
        node=args.node,
        as_json=args.json,
        clock=SystemClock(),
        out=_line,
        progress=lambda text: print(text, file=sys.stderr, flush=True),
    )


def _answer_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--wait-s", type=float, default=60.0, metavar="S", help="follow the answers for so long: 60; 0: queue and end"
    )
    command.add_argument("--json", action="store_true", help="print the answers as JSON")


def _send(args: argparse.Namespace) -> int:
    from agent import remote
    from agent.clock import SystemClock
    from agent.config import load
    from agent.station.footage_list import listed
    from agent.station.main import StationSettings

    settings = load(args.config, StationSettings)
    if args.list:
        return listed(settings, args.nodes, as_json=args.json, out=_line)
    if args.start is None or args.end is None:
        raise ConfigError("send: give --from, --to and --reason; or --list")
    asked = {"from": args.start, "to": args.end, "reason": args.reason}
    return remote.send(
        settings, args.nodes, asked, wait_s=args.wait_s, as_json=args.json, clock=SystemClock(), out=_line
    )


def _update(args: argparse.Namespace) -> int:
    from agent import remote
    from agent.clock import SystemClock
    from agent.config import load
    from agent.station.main import StationSettings

    settings = load(args.config, StationSettings)
    bundle = _announced(settings, args)
    return remote.update(
        settings, args.nodes, bundle, wait_s=args.wait_s, as_json=args.json, clock=SystemClock(), out=_line
    )


def _announced(settings: StationSettings, args: argparse.Namespace) -> Announced:
    from agent import remote

    return remote.announced(
        settings,
        bundle=args.bundle,
        url=args.url,
        number=args.number,
        size=args.bytes,
        sha256=args.sha256,
        key=args.key,
    )


def _configure(args: argparse.Namespace) -> int:
    from agent import configure
    from agent.clock import SystemClock
    from agent.config import load
    from agent.station.main import StationSettings

    settings = load(args.config, StationSettings)
    if args.file is None and not args.set:
        return configure.show(settings, args.node, as_json=args.json, out=_line)
    if args.node is None:
        raise ConfigError("configure: name the NODE that --file or --set is for")
    return configure.configure(
        settings,
        args.node,
        file=args.file,
        values=args.set,
        revision=args.revision,
        wait_s=args.wait_s,
        as_json=args.json,
        clock=SystemClock(),
        out=_line,
    )


def _signal(args: argparse.Namespace) -> int:
    from agent import remote
    from agent.clock import SystemClock
    from agent.config import load
    from agent.station.main import StationSettings

    return remote.signal(
        load(args.config, StationSettings),
        args.node,
        args.output,
        args.seconds,
        reason=args.reason,
        by=args.by,
        wait_s=args.wait_s,
        as_json=args.json,
        clock=SystemClock(),
        out=_line,
    )


def _line(text: str) -> None:
    """At once, also into a pipe: somebody waits for it."""
    print(text, flush=True)


def _setup_page_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    page = commands.add_parser("setup-page", help="the page for installing this post, on its own hotspot or USB link")
    _config(page, NODE_CONFIG)
    one = page.add_mutually_exclusive_group()
    one.add_argument("--minutes", type=float, metavar="N", help="on for so long; page_minutes_max at most")
    one.add_argument("--off", action="store_true", help="off now")
    one.add_argument("--status", action="store_true", help="only say whether it is on")
    page.set_defaults(run=_setup_page)


def _eyes(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    zones = commands.add_parser("zones", help="draw zones and masks on the camera's picture, in a browser")
    _config(zones, NODE_CONFIG)
    zones.add_argument(
        "--snapshot", type=Path, metavar="FILE", help="draw on this picture or film; default: what the camera sees now"
    )
    zones.add_argument(
        "--listen", default="127.0.0.1:8733", metavar="ADDR:PORT", help="default: 127.0.0.1:8733; see `ssh -L`"
    )
    zones.add_argument("--idle-s", type=float, default=900.0, metavar="S", help="ends when not used for so long: 900")
    zones.set_defaults(run=_zones)

    replay = commands.add_parser("replay", help="run the node's eyes over a file, offline, as fast as possible")
    replay.add_argument("file", type=Path, metavar="FILE")
    replay.add_argument(
        "--config", type=Path, metavar="F", help="take [vision], [[zones]] and masks from this node.toml"
    )
    replay.add_argument("--store", type=Path, metavar="DIR", help="record and store events as a node would, in DIR")
    replay.add_argument("--detections", type=Path, metavar="OUT.jsonl", help="write every analysed frame's detections")
    replay.add_argument("--picture", type=Path, metavar="OUT.png", help="draw what it saw, and why, in one picture")
    replay.add_argument("--video", type=Path, metavar="OUT.mp4", help="draw it on every picture it looked at")
    replay.add_argument(
        "--at", metavar="TIME", help="when the file begins, as 2026-12-24T16:30:00+07:00: for schedules"
    )
    replay.add_argument("--every-frame", action="store_true", help="run the detector on every frame, scores from 0.1")
    replay.set_defaults(run=_replay)

    evaluate = commands.add_parser("evaluate", help="how good the node's eyes are on footage with known truth")
    evaluate.add_argument("file", type=Path, metavar="VIDEO")
    evaluate.add_argument("truth", type=Path, metavar="GROUND_TRUTH", help="boxes of persons, in the form of MOT15")
    evaluate.add_argument("--config", type=Path, metavar="F", help="as for replay")
    evaluate.add_argument("--json", action="store_true", help="print it as JSON")
    evaluate.set_defaults(run=_evaluate)

    audit = commands.add_parser("audit", help="false alerts by what people said of them, and a change that would help")
    _config(audit, NODE_CONFIG)
    audit.add_argument("--days", type=float, default=7.0, metavar="N", help="so far back; default: 7")
    audit.add_argument("--apply", action="store_true", help="write the best change that was seen to lose no true alert")
    audit.add_argument("--report", action="store_true", help="have the running node tell headquarters")
    audit.add_argument("--json", action="store_true", help="print it as JSON")
    audit.set_defaults(run=_audit)

    verdict = commands.add_parser("verdict", help="at a station: say of an alert whether it was true, and why")
    _config(verdict, STATION_CONFIG)
    verdict.add_argument("--node", required=True, metavar="NODE", help="the node that told it, dark or not")
    verdict.add_argument("--incident", required=True, metavar="ID", help="as `wardpost watch --json` shows it")
    verdict.add_argument("--verdict", required=True, choices=["true", "false"], help="was somebody or something there?")
    verdict.add_argument("--reason", default="", metavar="TEXT", help="what it was: rain, a dog, the postman")
    verdict.add_argument("--by", default="", metavar="NAME", help="who says so; default: the user of this command")
    verdict.add_argument("--json", action="store_true", help="print the answer as JSON")
    verdict.set_defaults(run=_verdict)

    model = commands.add_parser("model", help="get the detector's pinned model, say where it is, or try a model")
    model.add_argument("action", choices=["fetch", "list", "test"])
    model.add_argument(
        "--picture", action="append", default=[], type=Path, metavar="FILE", help="test: a picture or film to look at"
    )
    model.add_argument("--config", type=Path, metavar="F", help="test: take [vision.detector] from this node.toml")
    model.add_argument("--model", type=Path, metavar="FILE.tflite", help="test: this model; with --labels")
    model.add_argument("--labels", type=Path, metavar="FILE.txt", help="test: its class names, one a line")
    model.add_argument("--delegate", type=Path, metavar="LIB.so", help="test: an accelerator's library")
    model.add_argument("--json", action="store_true", help="test: print it as JSON")
    model.set_defaults(run=_model)


def _sites(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    site = commands.add_parser("site", help="at headquarters: a site's certificates, register and brokers")
    actions = site.add_subparsers(title="actions", metavar="ACTION", required=True)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        one = actions.add_parser(name, help=text)
        one.add_argument("dir", type=Path, metavar="DIR", help="the site's folder")
        one.set_defaults(run=_site, action=name)
        return one

    init = action("init", "make a site; never overwrites one")
    init.add_argument("--site", required=True, metavar="NAME", help="its name: letters a to z, digits, hyphens")
    init.add_argument("--broker", action="append", required=True, metavar="HOST[:PORT]", help="as posts reach it")
    show = action("show", "its posts, what was refused, what expires")
    show.add_argument("--json", action="store_true", help="print it as JSON")
    place = action("place", "note what a post shares with its neighbours; what is not given stays, '' takes it back")
    place.add_argument("node", metavar="NODE")
    place.add_argument("--house", metavar="TEXT", help="whose mains and router it shares with other posts")
    place.add_argument("--pole", metavar="TEXT", help="of the street: the line that several houses hang on")
    place.add_argument("--provider", metavar="TEXT", help="who carries its messages")
    place.add_argument("--position", metavar="LAT,LON", help="in degrees: 21.0285,105.8542")
    action("brokers", "write the brokers' configuration and the CRL anew")
    backup = action("backup", "one encrypted file")
    backup.add_argument("-o", dest="output", required=True, type=Path, metavar="FILE")
    backup.add_argument("--passphrase-file", type=Path, metavar="F", help="its first line; default: it is asked for")
    restore = action("restore", "bring a site back from its backup")
    restore.add_argument("--from", dest="source", required=True, type=Path, metavar="FILE", help="the backup")
    restore.add_argument("--passphrase-file", type=Path, metavar="F", help="as for backup")
    revoke = action("revoke", "shut a post or a certificate out")
    revoke.add_argument("node", nargs="?", metavar="NODE", help="all that this post has")
    revoke.add_argument("--serial", metavar="N", help="one certificate, by its serial number in hexadecimal")
    revoke.add_argument("--reason", default="", metavar="TEXT", help="why; it stays in the register")
    kick = action("kick", "end the session of a revoked post at its brokers, once they have read the new CRL")
    kick.add_argument("node", metavar="NODE")
    kick.add_argument("--stay-s", type=float, default=15.0, metavar="S", help="watch so long whether it comes back")
    desk = action("desk-cert", "a certificate for the pages of this site's station")
    desk.add_argument("hosts", nargs="+", metavar="HOST", help="as browsers write it: a name or an address")
    renew = action("renew", "new certificates for broker and station, when half of their life is over")
    renew.add_argument("--now", action="store_true", help="also before")


def _provision_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    one = commands.add_parser("provision", help="at headquarters: register a new post and write its kit, for its card")
    one.add_argument("node", metavar="NODE", help="its name: letters a to z, digits, hyphens; unique in the site")
    one.add_argument("--site", required=True, type=Path, metavar="DIR", help="made by `wardpost site init`")
    one.add_argument("--profile", default="", metavar="NAME", help="household, school-gate, roadside, or a file")
    one.add_argument("--device", default="", metavar="TEXT", help="serial number of the board, or its inventory number")
    one.add_argument("--place", default="", metavar="TEXT", help="in words, for whoever receives an alert")
    one.add_argument("--custodian", default="", metavar="TEXT", help="who looks after it; stands on the label")
    one.add_argument("--consent", default="", metavar="TEXT", help="who agreed, when, where the paper is")
    one.add_argument("--house", default="", metavar="TEXT", help="whose mains and router it shares with other posts")
    one.add_argument("--pole", default="", metavar="TEXT", help="of the street: the line that several houses hang on")
    one.add_argument("--provider", default="", metavar="TEXT", help="who carries its messages; tells why it is dark")
    one.add_argument("--position", default="", metavar="LAT,LON", help="in degrees: 21.0285,105.8542")
    one.add_argument("--camera-url", default="", metavar="URL", help="rtsp://... or /dev/video0; else the ribbon cable")
    one.add_argument("--time-zone", default="", metavar="NAME", help="Asia/Ho_Chi_Minh; default: the profile's")
    one.add_argument("--wifi", metavar="NAME", help="the network's name, as people see it")
    one.add_argument(
        "--psk-file", type=Path, metavar="F", help="its password, in the first line; none: an open network"
    )
    one.add_argument("--country", default="", metavar="XX", help="where the radio is: VN")
    one.add_argument("--ethernet", action="store_true", help="a cable, DHCP")
    one.add_argument("--lte", metavar="APN", help="a modem; the mobile operator names the APN")
    one.add_argument("--lte-user", default="", metavar="NAME")
    one.add_argument("--lte-password-file", type=Path, metavar="F")
    one.add_argument("--lte-pin", default="", metavar="PIN", help="of the SIM")
    one.add_argument("--user", default="technician", metavar="NAME", help="the technician's login; default: technician")
    one.add_argument(
        "--ssh-key", action="append", default=[], type=Path, metavar="F", help="a public key that may log in"
    )
    one.add_argument("--claim-days", type=int, default=14, metavar="N", help="so long the card may first be used: 14")
    one.add_argument("--again", action="store_true", help="a new card for a post that is there; the old one is revoked")
    one.set_defaults(run=_provision)


def _release_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    release = commands.add_parser("release", help="make, verify and install releases of the agent; go back to the last")
    actions = release.add_subparsers(title="actions", metavar="ACTION", required=True)

    make = actions.add_parser("make", help="at headquarters: one signed bundle of a folder of wheels")
    make.add_argument("-o", dest="output", required=True, type=Path, metavar="FILE.zip")
    make.add_argument("--key", required=True, type=Path, metavar="KEY.pem", help="the site's private release key")
    make.add_argument("--wheels", required=True, type=Path, metavar="DIR", help="wardpost and all that it needs")
    make.add_argument("--number", required=True, type=int, metavar="N", help="higher than that of any release before")
    make.add_argument("--architecture", default="", metavar="A", help="aarch64, x86_64; default: this machine's")
    make.add_argument("--python", default="", metavar="3.N", help="of the nodes; default: this one")
    make.set_defaults(run=_release_make)

    verify = actions.add_parser("verify", help="what a bundle is, and whether it is what was signed")
    verify.add_argument("file", type=Path, metavar="FILE.zip")
    verify.add_argument("--key", required=True, metavar="PUB", help="the public key: a PEM file or 64 hex digits")
    verify.set_defaults(run=_release_verify)

    install = actions.add_parser("install", help="at the node: verify, unpack beside the running release, and start it")
    install.add_argument("file", type=Path, metavar="FILE.zip")
    _config(install, NODE_CONFIG)
    install.set_defaults(run=_release_install)
    for name, text in (
        ("status", "which release runs, which is on trial, what became of the last"),
        ("confirm", "keep the release on trial, whatever its checks say"),
        ("rollback", "leave the release on trial, or go back to the one before"),
    ):
        one = actions.add_parser(name, help=text)
        _config(one, NODE_CONFIG)
        one.add_argument("--json", action="store_true", help="print it as JSON")
        one.set_defaults(run=_release_act, action=name)


def _release_make(args: argparse.Namespace) -> int:
    from agent.release import desk

    return desk.make(
        args.output,
        key=args.key,
        wheels=args.wheels,
        number=args.number,
        architecture=args.architecture,
        python=args.python,
        out=print,
    )


def _release_verify(args: argparse.Namespace) -> int:
    from agent.release import desk

    return desk.verify_file(args.file, key=args.key, out=print)


def _release_install(args: argparse.Namespace) -> int:
    from agent.release import desk

    return desk.install(args.config, args.file, out=print)


def _release_act(args: argparse.Namespace) -> int:
    from agent.release import desk

    return desk.act(args.config, args.action, as_json=args.json, out=print)


def _account(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    coverage = commands.add_parser("coverage", help="what became of every second of a time range, and why")
    _config(coverage, NODE_CONFIG)
    coverage.add_argument("--from", dest="start", required=True, metavar="TIME", help="as for footage")
    coverage.add_argument("--to", dest="end", required=True, metavar="TIME")
    coverage.add_argument("--json", action="store_true", help="print it as JSON")
    coverage.add_argument("--svg", type=Path, metavar="OUT.svg", help="draw it, a row for each local day")
    coverage.set_defaults(run=_coverage)

    hold = commands.add_parser("hold", help="keep the footage of a time range through everything")
    hold.add_argument("--config", type=Path, metavar="F", help=f"default: {NODE_CONFIG}, with --node {STATION_CONFIG}")
    hold.add_argument("--node", metavar="NODE", help="at a station: the node that is to hold, dark or not")
    hold.add_argument("--from", dest="start", metavar="TIME", help="as for footage; may lie in the future")
    hold.add_argument("--to", dest="end", metavar="TIME")
    hold.add_argument("--until", metavar="TIME", help="when the hold ends by itself; default: when it is released")
    hold.add_argument("--reason", metavar="TEXT", help="why; it goes on the ledger")
    hold.add_argument("--list", action="store_true", help="list the holds; with --node, what was asked of the node")
    hold.add_argument("--release", metavar="ID", help="end a hold")
    hold.add_argument("--json", action="store_true", help="print the answer as JSON")
    hold.set_defaults(run=_hold)


def _evidence(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    export = commands.add_parser("export", help="make an evidence package of a time range, to be checked by anybody")
    _config(export, NODE_CONFIG)
    export.add_argument("--from", dest="start", required=True, metavar="TIME", help="as for footage")
    export.add_argument("--to", dest="end", required=True, metavar="TIME")
    export.add_argument("-o", dest="output", required=True, type=Path, metavar="FILE.zip")
    export.add_argument("--who", default="", metavar="NAME", help="who takes it out; default: the user of this command")
    export.add_argument("--reason", default="", metavar="TEXT", help="why; both go on the ledger")
    export.set_defaults(run=_export)

    opening = commands.add_parser("open", help="at the station: open an evidence package of sealed footage, provably")
    opening.add_argument("package", type=Path, metavar="PACKAGE.zip")
    opening.add_argument("--key", required=True, type=Path, metavar="KEY.pem", help="the private half of seal_key")
    opening.add_argument("-o", dest="output", required=True, type=Path, metavar="OPEN.zip")
    opening.add_argument("--who", default="", metavar="NAME", help="who opens it; default: the user of this command")
    opening.add_argument("--sign", type=Path, metavar="KEY.pem", help="sign the opening (Ed25519, the station's say)")
    opening.set_defaults(run=_open)

    key = commands.add_parser("key", help="show the node's public keys, or give it a new one")
    key.add_argument("action", choices=["show", "rotate"])
    key.add_argument(
        "--config", type=Path, metavar="F", help=f"default: {NODE_CONFIG}, with --station {STATION_CONFIG}"
    )
    key.add_argument("--station", action="store_true", help="show the key by which a station signs its receipts")
    key.add_argument("--reason", default="", metavar="TEXT", help="why it is changed; it goes on the ledger")
    key.add_argument("--json", action="store_true", help="print the answer as JSON")
    key.set_defaults(run=_key)

    verify = commands.add_parser("verify", help="check an evidence package, and say what is wrong with it")
    verify.add_argument("package", type=Path, metavar="PACKAGE.zip")
    verify.add_argument(
        "--trust", action="append", default=[], type=Path, metavar="KEY", help="a public key known from elsewhere"
    )
    verify.add_argument("--json", action="store_true", help="print the result as JSON")
    verify.set_defaults(run=_verify)


def _config(command: argparse.ArgumentParser, default: Path) -> None:
    command.add_argument("--config", type=Path, default=default, metavar="F", help=f"default: {default}")


def _run(args: argparse.Namespace) -> int:
    from agent.main import run

    return run(args.config)


def _replay_settings(config: Path | None) -> ReplaySettings:
    from agent.config import Config, load
    from agent.replay import ReplaySettings

    return ReplaySettings() if config is None else ReplaySettings.of(load(config, Config))


def _replay(args: argparse.Namespace) -> int:
    from agent.clock import Usage
    from agent.desk import moment
    from agent.replay import replay

    return replay(
        args.file,
        settings=_replay_settings(args.config),
        store_dir=args.store,
        detections=args.detections,
        every_frame=args.every_frame,
        picture=args.picture,
        video=args.video,
        utc_ns=None if args.at is None else moment("replay", "--at", args.at),
        usage=Usage(),
    )


def _check(args: argparse.Namespace) -> int:
    from agent.technician import run_check

    return run_check(args.config, print)


def _selftest(args: argparse.Namespace) -> int:
    from agent.technician import run_selftest

    return run_selftest(args.config, print)


def _setup_page(args: argparse.Namespace) -> int:
    from agent.setup_page.command import setup_page

    return setup_page(args.config, minutes=args.minutes, off=args.off, ask_only=args.status, out=print)


def _zones(args: argparse.Namespace) -> int:
    from agent.zones_page.command import zones

    return zones(
        args.config,
        snapshot=args.snapshot,
        listen=args.listen,
        idle_s=args.idle_s,
        out=lambda line: print(line, flush=True),
        stop=_stop_on_signals(),
    )


def _doctor(args: argparse.Namespace) -> int:
    if args.node is None:
        from agent.doctor.desk import doctor

        return doctor(args.config or NODE_CONFIG, as_json=args.json, out=print)
    from agent import remote
    from agent.clock import SystemClock
    from agent.config import load
    from agent.station.main import StationSettings

    settings = load(args.config or STATION_CONFIG, StationSettings)
    return remote.doctor(settings, args.node, wait_s=args.wait_s, as_json=args.json, clock=SystemClock(), out=_line)


def _status(args: argparse.Namespace) -> int:
    import json

    from agent.config import Config, load
    from agent.local import status_of

    print(json.dumps(status_of(Path(load(args.config, Config).node.data)), indent=2))
    return 0


def _footage(args: argparse.Namespace) -> int:
    from agent.config import Config, load
    from agent.desk import footage

    return footage(
        load(args.config, Config),
        start=args.start,
        end=args.end,
        output=args.output,
        as_json=args.json,
        out=print,
        key=args.key,
    )


def _coverage(args: argparse.Namespace) -> int:
    from agent.config import Config, load
    from agent.desk import coverage

    config = load(args.config, Config)
    return coverage(config, start=args.start, end=args.end, as_json=args.json, svg=args.svg, out=print)


def _hold(args: argparse.Namespace) -> int:
    from agent.config import Config, load

    verb, asked = _hold_args(args)
    if args.node is None:
        from agent.desk import hold

        return hold(load(args.config or NODE_CONFIG, Config), verb, asked, as_json=args.json, out=print)
    from agent.station.main import StationSettings
    from agent.station.order import order

    settings = load(args.config or STATION_CONFIG, StationSettings)
    return order(settings, args.node, verb, asked, as_json=args.json, out=print)


def _hold_args(args: argparse.Namespace) -> tuple[str, dict[str, str]]:
    """The verb and its arguments. Raises ConfigError."""
    if args.list:
        return "holds", {}
    if args.release is not None:
        return "release", {"hold": args.release}
    if args.start is None or args.end is None or not args.reason:
        raise ConfigError("hold: give --from, --to and --reason; or --list, or --release ID")
    asked = {"from": args.start, "to": args.end, "reason": args.reason}
    return "hold", asked if args.until is None else asked | {"until": args.until}


def _export(args: argparse.Namespace) -> int:
    from agent.config import Config, load
    from agent.extraction import export_package

    return export_package(
        load(args.config, Config),
        start=args.start,
        end=args.end,
        output=args.output,
        who=args.who,
        reason=args.reason,
        out=print,
    )


def _open(args: argparse.Namespace) -> int:
    from agent.extraction import open_sealed

    return open_sealed(args.package, key=args.key, output=args.output, who=args.who, sign=args.sign, out=print)


def _key(args: argparse.Namespace) -> int:
    from agent.config import Config, load
    from agent.extraction import rotate_key, show_keys, show_station_key

    if args.station:
        from agent.station.main import StationSettings

        if args.action != "show":
            raise ConfigError("key: a station's key is not changed by this command; --station goes with show")
        data = load(args.config or STATION_CONFIG, StationSettings).station.data
        return show_station_key(Path(data), as_json=args.json, out=print)
    config = load(args.config or NODE_CONFIG, Config)
    if args.action == "show":
        return show_keys(config, as_json=args.json, out=print)
    return rotate_key(config, reason=args.reason, as_json=args.json, out=print)


def _verify(args: argparse.Namespace) -> int:
    import json

    from agent.evidence.standalone import in_words
    from agent.evidence.verify import EXIT, trusted_key, verify

    trusted = [trusted_key(path) for path in args.trust]
    if args.package.suffix == ".jsonl":
        from agent.station.people import command

        return command.verify(args.package, trusted, as_json=args.json, out=print)
    result = verify(args.package, trusted)
    print(json.dumps(result, indent=2) if args.json else in_words(str(args.package), result))
    return EXIT[result["verdict"]]


def _station(args: argparse.Namespace) -> int:
    import random

    from agent import logs
    from agent.clock import SystemClock
    from agent.config import load
    from agent.station.main import StationSettings, run_station

    logs.set_up()
    settings = load(args.config, StationSettings)
    run_station(settings, clock=SystemClock(), rng=random.Random(), stop=_stop_on_signals())  # noqa: S311
    return 0


def _watch(args: argparse.Namespace) -> int:
    from agent.clock import SystemClock
    from agent.config import load
    from agent.station.main import StationSettings
    from agent.station.reader import Reader
    from agent.station.watch import Watcher, follow

    settings = load(args.config, StationSettings).station
    reader = Reader(Path(settings.data), database=settings.database)
    reader.open()
    try:
        watcher = Watcher(reader, as_json=args.json)
        if not args.all:
            watcher.from_now()
        follow(watcher, say=lambda line: print(line, flush=True), stop=_stop_on_signals(), clock=SystemClock())
    finally:
        reader.close()
    return 0


def _posts(args: argparse.Namespace) -> int:
    from agent.clock import SystemClock
    from agent.config import load
    from agent.station.main import StationSettings
    from agent.station.posts.table import posts

    desk = load(args.config, StationSettings).station
    return posts(
        Path(desk.data),
        database=desk.database,
        register=desk.register,
        node=args.node,
        as_todo=args.to_do,
        by_cost=args.by_cost,
        as_json=args.json,
        clock=SystemClock(),
        out=print,
    )


def _verdict(args: argparse.Namespace) -> int:
    from agent.config import load
    from agent.login import login
    from agent.station.main import StationSettings
    from agent.station.order import order
    from agent.verdicts import read

    asked = {
        "incident": args.incident,
        "verdict": args.verdict,
        "reason": args.reason,
        "by": args.by or login(),
    }
    try:
        read(asked | {"id": "-"}, asker="", made_utc_ns=0)  # what the node would refuse is not sent to it
    except Corrupt as error:
        raise ConfigError(str(error)) from None
    settings = load(args.config, StationSettings)
    return order(settings, args.node, "verdict", asked, as_json=args.json, out=print)


def _audit(args: argparse.Namespace) -> int:
    from agent.auditing import run_audit

    return run_audit(args.config, days=args.days, as_json=args.json, apply=args.apply, report=args.report, out=print)


def _evaluate(args: argparse.Namespace) -> int:
    from agent.clock import Usage
    from agent.evaluation import evaluate

    settings = _replay_settings(args.config)
    return evaluate(args.file, args.truth, settings=settings, usage=Usage(), as_json=args.json, out=print)


def _model(args: argparse.Namespace) -> int:
    from agent import modelbench

    if args.action != "test":
        if args.picture or args.config or args.model or args.labels or args.delegate or args.json:
            raise ConfigError(f"model {args.action}: takes no files and no options; they belong to `model test`")
        return modelbench.pinned(fetch=args.action == "fetch", out=print)
    settings = modelbench.chosen(args.config, model=args.model, labels=args.labels, delegate=args.delegate)
    return modelbench.trial(settings, args.picture, as_json=args.json, out=print)


def _site(args: argparse.Namespace) -> int:  # noqa: PLR0911  (one return for each action)
    from agent.clock import SystemClock
    from agent.site import commands

    clock, root = SystemClock(), args.dir
    match args.action:
        case "init":
            return commands.init(root, name=args.site, hosts=args.broker, clock=clock, out=print)
        case "show":
            return commands.show(root, as_json=args.json, clock=clock, out=print)
        case "place":
            from agent.site.whereabouts import place

            asked = {name: getattr(args, name) for name in ("house", "pole", "provider", "position")}
            return place(root, args.node, **asked, clock=clock, out=print)
        case "desk-cert":
            from agent.site.desk_cert import desk_cert

            return desk_cert(root, args.hosts, clock=clock, out=print)
        case "brokers":
            return commands.brokers(root, clock=clock, out=print)
        case "backup":
            return commands.back_up(root, output=args.output, passphrase_file=args.passphrase_file, out=print)
        case "restore":
            return commands.restore(root, source=args.source, passphrase_file=args.passphrase_file, out=print)
        case "renew":
            return commands.renew(root, every=args.now, clock=clock, out=print)
        case "kick":
            from agent.site.kick import kick

            return kick(root, args.node, stay_s=args.stay_s, clock=clock, out=print)
    return commands.revoke(root, node=args.node, serial=args.serial, reason=args.reason, clock=clock, out=print)


def _provision(args: argparse.Namespace) -> int:
    from agent.clock import SystemClock
    from agent.site.provisioning import Asked, provision

    names = (
        "node profile device place custodian consent house pole provider position camera_url time_zone user"
        " wifi psk_file country ethernet lte"
        " lte_user lte_password_file lte_pin claim_days again"
    )
    asked = Asked(ssh_keys=tuple(args.ssh_key), **{name: getattr(args, name) for name in names.split()})
    return provision(args.site, asked, clock=SystemClock(), out=print)


def _enrol(args: argparse.Namespace) -> int:
    from agent import logs
    from agent.clock import SystemClock
    from agent.enrolling import enrol

    logs.set_up()
    return enrol(args.config, wait_s=args.wait_s, clock=SystemClock(), stop=_stop_on_signals(), out=print)


def _flash(args: argparse.Namespace) -> int:
    from agent.card.flash import run_flash

    return run_flash(args.target, args.node, site=args.site, bundle=args.bundle, stock=args.image, yes=args.yes)


def _bundle(args: argparse.Namespace) -> int:
    from agent.card.collect import run_bundle

    return run_bundle(args.output, arch=args.arch, python=args.python, source=args.source)


def _contract(_args: argparse.Namespace) -> int:
    from agent.contract import text

    print(text(), end="")
    return 0


def _demo(args: argparse.Namespace) -> int:
    from agent.demo import main as demo

    return demo(camera=args.camera, out=args.out)


def _stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    import signal

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


if __name__ == "__main__":
    sys.exit(main())
