"""What is wrong with a post now, and what to do about it, in the words of whoever stands in front of it. Pure.

`check` judges settings and machine before a start, `selftest` uses each part once, `status` gives raw numbers. `doctor`
says what follows from all that is known of a post, running or not. `gather.py` gathers, this judges: a rule is a
small function from Facts to Diagnosis or None, and RULES is their order within one urgency.

| part | told when | urgency |
|---|---|---|
| agent | it does not run; its process does not answer; something keeps it from starting | now |
| agent | it starts again and again; a part of it is down, or has just fallen again | now, soon |
| card | read-only, refuses writes; less free than recording.free_gb_min, by other things than footage | now; soon |
| recording | the recorder has a fault, or records nothing although there are pictures | now |
| recording | footage younger than recording.young_h goes soon; footage of alerts that headquarters has not yet | soon |
| camera | no pictures; lost again and again; fewer pictures than set | now; soon |
| view | a tamper incident is open: covered, turned, out of focus, ... | now |
| detector | it cannot run, so everything that moves is kept and told | soon |
| certificate | missing without a claim, refused, expired; renewal refused or overdue; not enrolled yet | now; soon |
| link | no broker for LINK_GRACE_S; a broker, but no station that acknowledges | soon |
| outbox | messages were given up, or it is nearly full | now |
| power | mains lost, too little voltage now | now |
| power | too little voltage since the boot; power cuts in the last day | soon, note |
| heat, memory | hot or slowed down by heat; little memory left | soon |
| clock | nobody vouches for it | soon |
| keys | the seal key's file is gone: the next start fails | now |
| release, settings | on trial; given up | note; soon |
| privacy | the switch is on | note |

A note asks nothing of anybody: with notes alone, nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from agent.doctor.facts import Facts, Identity, Service
from agent.logs import fold
from agent.quantities import DAY_S, gb, span

LINK_GRACE_S = 10.0
"""A connection takes seconds to be made."""
CAMERA_GRACE_S = 20.0
"""A camera may take so long after a start of the agent until it gives its first picture."""
CERT_SOON_DAYS = 30.0
CERT_SOON_PART = 1 / 6
"""Of its life, where that is known: half of what is left when a post begins to renew its certificate by itself."""
OUTBOX_FULL = 0.8
FLAPS_MIN = 3
"""As often as this, a part that came back each time is told all the same ..."""
CALM_S = 600.0
"""... until it has stayed up for so long; what was mended must not be told for ever."""
CAMERA_CALM_S = 4 * 3600.0
"""A camera that is lost less often than this is not told."""
STARTS_MAX = 4
"""Starts of the agent within an hour; more of them are a loop."""
FPS_SHARE_MIN = 0.7
HOT_C = 80.0
"""From here on the firmware of a Raspberry Pi slows it down (soft limit 80, hard limit 85 degrees)."""
MEMORY_BYTES_MIN = 60 << 20
CUTS_MANY = 3
"""Power cuts in a day: once is an outage of the street, this is a fault of the supply."""
SPAN_S_MIN = 60.0
"""A stretch without footage, shorter than this in a day, is not told."""
TEXT_CHARS_MAX = 400
REPLY_BYTES_MAX = 40 * 1024
"""Of the texts in a reply; with all that JSON adds to them it stays below the 64 KiB of the wire."""


class Urgency(StrEnum):
    """When somebody must act."""

    NOW = "now"  # the post does not do what it is there for
    SOON = "soon"  # it does, at a price or not for long
    NOTE = "note"  # nobody: it explains what somebody may have noticed


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing: what it is, what that rests on, and what to do."""

    urgency: Urgency
    part: str
    what: str
    why: str = ""
    todo: str = ""

    def as_dict(self) -> dict[str, str]:
        """As JSON has it."""
        texts = {"what": self.what, "why": self.why, "todo": self.todo}
        return {"urgency": self.urgency.value, "part": self.part} | {
            name: fold(text)[:TEXT_CHARS_MAX] for name, text in texts.items()
        }


def diagnose(facts: Facts) -> list[Diagnosis]:
    """Everything there is to say, most urgent first."""
    found = [diagnosis for rule in RULES for diagnosis in rule(facts)]
    return sorted(found, key=lambda one: list(Urgency).index(one.urgency))  # stable: within one urgency, RULES decide


def summary(found: Sequence[Diagnosis]) -> str:
    """One sentence."""
    wrong = [one for one in found if one.urgency is not Urgency.NOTE]
    if not wrong:
        return "Nothing is wrong."
    first = f"{wrong[0].what.removesuffix('.')}."
    more = len(wrong) - 1
    return first if not more else f"{first} And {more} thing{'' if more == 1 else 's'} more."


def as_reply(found: Sequence[Diagnosis]) -> dict[str, Any]:
    """As a command is answered, and `wardpost doctor --json` prints it: most urgent first, while they fit."""
    told: list[dict[str, str]] = []
    size = 0
    for one in found:
        size += sum(len(text.encode()) for text in one.as_dict().values())
        if size > REPLY_BYTES_MAX:
            break
        told.append(one.as_dict())
    return {
        "well": all(one.urgency is Urgency.NOTE for one in found),
        "summary": fold(summary(found))[:TEXT_CHARS_MAX],
        "diagnoses": told,
    }


def in_words(reply: dict[str, Any]) -> str:
    """A reply for a person."""
    lines = ["Nothing is wrong."] if reply["well"] else []
    titles = {"now": "NOW", "soon": "soon", "note": "to know"}
    for one in reply["diagnoses"]:
        lines.append(f"{titles.get(one['urgency'], one['urgency'])}: {one['what']}")
        lines += [f"    why: {one['why']}"] * bool(one["why"]) + [f"    do:  {one['todo']}"] * bool(one["todo"])
    return "\n".join(lines)


# -- a post that does not run ----------------------------------------------------------------------------------------

Found = list[Diagnosis]
SERVICE = "wardpost-node"


def _not_running(facts: Facts) -> Found:
    stopped = facts.stopped
    if stopped is None:
        return []
    if stopped.holder:
        return [
            Diagnosis(
                Urgency.NOW,
                "agent",
                "The agent does not answer, although it holds its data folder",
                f"process {stopped.holder} works on {stopped.folder}: it is starting (after a cut it mends the footage"
                f" first), another wardpost command reads the card, or it hangs; {stopped.said}",
                f"wait two minutes and ask again; then `sudo systemctl restart {SERVICE}`",
            )
        ]
    since = "" if stopped.silent_s is None else f", for {span(stopped.silent_s)}"
    what = "The agent has never run on this card" if stopped.never else f"The agent does not run{since}"
    causes = bool(stopped.objections or stopped.folder_fault or stopped.store_fault)
    first = "mend what is told below, then " if causes else ""
    todo = f"{first}`sudo systemctl start {SERVICE}`; `journalctl -u {SERVICE} -n 50` tells what it says"
    why = "; ".join(filter(None, (stopped.ended, _service_words(stopped.service))))
    if stopped.service is not None and not stopped.service.enabled:
        todo = f"{first}`sudo systemctl enable --now {SERVICE}`"
    return [Diagnosis(Urgency.NOW, "agent", f"{what}: nothing is recorded or watched", why, todo)]


def _service_words(service: Service | None) -> str:
    if service is None:
        return ""
    if not service.enabled:
        return "its service is not switched on: it does not start with the machine"
    code = f", its last process ended with {service.exit_code}" if service.exit_code else ""
    again = f", it was started again {service.restarts} times" if service.restarts else ""
    return f"systemd says: {service.active}{code}{again}"


def _cannot_start(facts: Facts) -> Found:
    stopped = facts.stopped
    if stopped is None:
        return []
    found = []
    if stopped.folder_fault:
        todo = "mount the data partition, or give the folder to the user wardpost; replace a card that is read-only"
        found.append(Diagnosis(Urgency.NOW, "agent", "The data folder cannot be used", stopped.folder_fault, todo))
    for objection in stopped.objections:
        todo = "mend it in the settings; `wardpost check` lists everything that is wrong there"
        found.append(Diagnosis(Urgency.NOW, "agent", "The agent cannot start with these settings", objection, todo))
    if stopped.store_fault:
        found.append(
            Diagnosis(
                Urgency.NOW,
                "agent",
                "The agent's memory of its events and footage cannot be read",
                stopped.store_fault,
                "start the agent: it sets a damaged one aside and rebuilds it from the footage; if the disk itself"
                " refuses, replace the card",
            )
        )
    return found


def _next_start(facts: Facts) -> Found:
    todo = "mend it before the next power cut; `wardpost check` lists everything that is wrong in the settings"
    what = "The agent runs, but will not start again"
    return [Diagnosis(Urgency.NOW, "keys", what, objection, todo) for objection in facts.objections]


def _loops(facts: Facts) -> Found:
    if facts.starts <= STARTS_MAX:
        return []
    return [
        Diagnosis(
            Urgency.NOW,
            "agent",
            f"The agent keeps starting again: {facts.starts} times in the last hour",
            "each start costs some seconds of footage; power that flickers looks the same",
            f"`journalctl -u {SERVICE} -n 200` names the cause; check the power supply; if a release is new,"
            " `wardpost release rollback`",
        )
    ]


# -- parts of a running agent ----------------------------------------------------------------------------------------

_TASKS = {
    "camera": "reads the camera",
    "recorder": "records",
    "vision": "watches for people",
    "uplink": "talks to headquarters",
    "panel": "reads bell and switches",
    "health": "watches clock and card",
    "ledger": "signs the evidence",
    "retention": "makes room on the card",
    "release": "installs updates",
    "privacy": "keeps the privacy switch",
    "local": "answers commands on the post",
}
_VITAL = ("camera", "recorder", "vision")


def _parts(facts: Facts) -> Found:
    found = []
    for part in facts.parts:
        task = _TASKS.get(part.name, "works in the agent")
        if _told_elsewhere(part.name, facts):
            continue
        if part.trouble:
            urgency = Urgency.NOW if part.name in _VITAL else Urgency.SOON
            what = f"The part that {task} ({part.name}) is down; it is tried again"
            todo = f"do what the reason says; if it stays so, `sudo systemctl restart {SERVICE}`"
            found.append(Diagnosis(urgency, "agent", what, part.trouble, todo))
        elif part.restarts >= FLAPS_MIN and part.up_s < CALM_S:
            what = f"The part that {task} ({part.name}) has fallen {part.restarts} times since the agent started"
            todo = f"it works now; `journalctl -u {SERVICE} | grep {part.name}:` names the cause, report it"
            found.append(Diagnosis(Urgency.SOON, "agent", what, "", todo))
    return found


def _told_elsewhere(name: str, facts: Facts) -> bool:
    camera, recording = facts.camera, facts.recording
    return (
        (name == "camera" and camera is not None and not camera.up)
        or (name == "recorder" and recording is not None and bool(recording.fault))
        or (name == "uplink" and facts.link is not None and not facts.link.up)
    )


def _unasked(facts: Facts) -> Found:
    if not facts.unasked:
        return []
    names = ", ".join(dict.fromkeys(part for part, _ in facts.unasked))
    errors = "; ".join(dict.fromkeys(error for _, error in facts.unasked))
    what = f"The post cannot look at a part of itself: {names}"
    todo = f"ask again; then `sudo systemctl restart {SERVICE}`; a disk that answers with errors must be replaced"
    return [Diagnosis(Urgency.SOON, "agent", what, errors, todo)]


def _card(facts: Facts) -> Found:
    card = facts.card
    if card is None:
        return []
    if card.fault:
        todo = "check that the data partition is mounted; replace the card if it answers with I/O errors"
        return [Diagnosis(Urgency.NOW, "card", "The card cannot be read", card.fault, todo)]
    if card.read_only:
        what = "The card has become read-only: nothing is recorded any more"
        why = "Linux does so when a card answers with errors: it is worn out or broken"
        return [Diagnosis(Urgency.NOW, "card", what, why, "save the footage (`wardpost export`), replace the card")]
    if card.free_bytes >= card.free_bytes_min:
        return []
    others = max(card.size_bytes - card.free_bytes - card.footage_bytes, 0)
    why = (
        f"{gb(card.free_bytes)} of {gb(card.size_bytes)} are free, {gb(card.free_bytes_min)} should be;"
        f" footage takes {gb(card.footage_bytes)}, other things {gb(others)}"
    )
    if others > card.footage_bytes:
        what = "The card is nearly full, and not of footage: the post must delete footage early"
        todo = "find what takes the room (`sudo du -xh -d2 / | sort -h | tail`) and remove it"
    else:
        what = "The card is nearly full"
        todo = "the oldest footage goes now; if it stays so, lower recording.budget_gb"
    return [Diagnosis(Urgency.SOON, "card", what, why, todo)]


def _recording(facts: Facts) -> Found:
    recording, camera = facts.recording, facts.camera
    if recording is None or recording.privacy_left_s > 0:
        return []
    if recording.fault:
        todo = "make room if the card is full; replace it if it says I/O error or read-only"
        return [Diagnosis(Urgency.NOW, "recording", "Nothing is recorded", recording.fault, todo)]
    if not recording.on and camera is not None and camera.up and facts.age_s > CAMERA_GRACE_S:
        what, why = "Nothing is recorded although the camera gives pictures", "the recorder reports no fault"
        todo = f"`sudo systemctl restart {SERVICE}`, and report this with `journalctl -u {SERVICE} -n 200`"
        return [Diagnosis(Urgency.NOW, "recording", what, why, todo)]
    return []


def _kept(facts: Facts) -> Found:
    recording = facts.recording
    if recording is None:
        return []
    found = []
    goes_s, kept_s = recording.overwrite_s, recording.kept_s
    if goes_s is not None and kept_s is not None and goes_s < recording.notice_s and kept_s < recording.young_s:
        what = f"The card holds only {span(kept_s)} of footage: the oldest goes in {span(max(goes_s, 0))}"
        why = f"recording.young_h asks for {span(recording.young_s)}"
        todo = "put in a larger card and raise recording.budget_gb, or lower camera.bitrate_kbps; release old holds"
        found.append(Diagnosis(Urgency.SOON, "recording", what, why, todo))
    if recording.unsent_s is not None and recording.unsent_s < DAY_S:
        what = f"Footage of alerts that headquarters has not received yet goes in {span(max(recording.unsent_s, 0))}"
        todo = "bring the link to headquarters back, or take the footage out here: `wardpost export`"
        found.append(Diagnosis(Urgency.SOON, "recording", what, "", todo))
    return found


def _camera(facts: Facts) -> Found:
    camera = facts.camera
    if camera is None:
        return []
    if not camera.up:
        if not camera.ever and facts.age_s < CAMERA_GRACE_S and not camera.fault:
            return []
        since = f", for {span(camera.age_s)}" if camera.age_s is not None else " since the agent started"
        why = camera.fault.removeprefix("The camera gives no pictures: ") or f"{camera.name} is silent"
        return [
            Diagnosis(
                Urgency.NOW,
                "camera",
                f"The camera gives no pictures{since}: nothing is recorded or watched",
                why,
                "ribbon cable: switch off, press it in at both ends, `rpicam-hello --list-cameras`; network camera: its"
                " power, its cable, its address in camera.url",
            )
        ]
    if camera.restarts >= FLAPS_MIN and facts.age_s < camera.restarts * CAMERA_CALM_S:
        what = f"The camera was lost {camera.restarts} times since the agent started; it gives pictures now"
        todo = "a loose cable or too little power: press the cable in, try another supply"
        return [Diagnosis(Urgency.SOON, "camera", what, "", todo)]
    wanted = camera.fps_wanted
    if wanted is not None and camera.fps < wanted * FPS_SHARE_MIN and facts.age_s > CAMERA_GRACE_S:
        what = f"The camera gives {camera.fps:g} pictures a second instead of {wanted:g}"
        todo = "in the dark a long exposure does this; else see heat and power above, or lower camera.fps"
        return [Diagnosis(Urgency.SOON, "camera", what, "", todo)]
    return []


def _view(facts: Facts) -> Found:
    todo = "look at the post: clean the lens, remove what covers it, turn it back; if this is the new normal view, wait"
    return [
        Diagnosis(Urgency.NOW, "view", "Something is wrong with what the camera sees", text, todo)
        for text in facts.views
    ]


def _detector(facts: Facts) -> Found:
    if not facts.detector_fault:
        return []
    what = "Nobody is told apart: everything that moves is kept and told"
    todo = "`wardpost model list` says whether the model is there, `wardpost model fetch` gets it"
    return [Diagnosis(Urgency.SOON, "detector", what, facts.detector_fault, todo)]


# -- the way to headquarters -----------------------------------------------------------------------------------------


_AGAIN = (
    "at headquarters: `wardpost provision NODE --again`; then flash the card anew, or keep it as it is: copy claim.pem,"
    " claim.key and claim.toml of the new kit into the post's identity folder, and `systemctl start wardpost-enrol`"
)


def _not_enrolled(facts: Facts) -> Found:
    identity = facts.identity
    if identity is None or identity.there:
        return []
    if not identity.claim:
        what = "The post has no certificate and no claim to get one: headquarters will not let it in"
        return [Diagnosis(Urgency.NOW, "certificate", what, f"{identity.path} is missing", _AGAIN)]
    if identity.refused:
        return [Diagnosis(Urgency.NOW, "certificate", "Headquarters refuses this card", identity.refused, _AGAIN)]
    what = "The post is not enrolled yet: it records, and asks headquarters for its certificate by itself"
    why = f"the claim of the card counts until {identity.claim_expires}" if identity.claim_expires else ""
    todo = "bring the network up and let it ask; `journalctl -u wardpost-enrol -n 20` tells how far it is"
    return [Diagnosis(Urgency.SOON, "certificate", what, _and(why, _waiting(facts)), todo)]


def _certificate(facts: Facts) -> Found:
    identity = facts.identity
    if identity is None or not identity.there:
        return []
    days, urgency = identity.days_left, Urgency.NOW
    doubt = "" if facts.time is None or facts.time.vouched else "the clock may be wrong: set it right first; then "
    if doubt and facts.link is not None and facts.link.up:
        days = None if days is not None and days < 0 else days  # headquarters lets it in: it is the clock
        identity = replace(identity, days_left=days, early_days=0.0)
    if identity.fault:
        what, why, todo = "The certificate of the post cannot be read", identity.fault, _AGAIN
    elif identity.early_days > 0:
        what = f"The certificate of the post is not valid for another {span(identity.early_days * DAY_S)}"
        why = "most often the clock is wrong, here or at the station when it was made"
        todo = f"set the clock right: `timedatectl`; if it is right here and there, {_AGAIN}"
    elif days is not None and days < 0:
        what = f"The certificate of the post expired {span(-days * DAY_S)} ago: headquarters will not let it in"
        why, todo = _waiting(facts), doubt + (_claimed(identity) or _AGAIN)
    elif identity.not_renewed:
        urgency, why = Urgency.SOON, identity.not_renewed
        left = "" if days is None else f", which is good for another {span(days * DAY_S)}"
        what, todo = f"Headquarters does not renew the certificate of the post{left}", f"ask there why, or {_AGAIN}"
    elif days is not None and days < _soon_days(identity):
        urgency, why = Urgency.SOON, identity.path
        what = f"The certificate of the post expires in {span(days * DAY_S)}, and should have been renewed by now"
        todo = (
            "let the post reach headquarters, where `wardpost station` must run with station.register and brokers with"
            " the access list of today (`wardpost site brokers`): it renews by itself, within a day"
        )
    else:
        return []
    return [Diagnosis(urgency, "certificate", what, why, todo)]


def _soon_days(identity: Identity) -> float:
    return CERT_SOON_DAYS if identity.life_days is None else identity.life_days * CERT_SOON_PART


def _claimed(identity: Identity) -> str:
    """What to do when a new claim lies there already."""
    return "a new claim lies beside it: `systemctl start wardpost-enrol`" if identity.claim else ""


_ROADS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("look up", "looked up", "resolve", "name or service", "unreachable", "no route", "network is down"),
        "check cable, Wi-Fi and router: the post reaches no network, or nobody there knows the broker's name",
    ),
    (
        ("not trusted", "no tls", "certificate", "tls."),
        "check the clock, and that uplink.tls names the files of this site; `wardpost check` looks at them",
    ),
    (
        ("refuses", "denies", "not authori"),
        "the network is well, headquarters does not let the post in: ask there whether it is registered, or shut out",
    ),
    (
        ("connection refused",),
        "the network is well: ask headquarters whether the broker runs, and check the port in uplink.brokers",
    ),
)


def _road(reason: str) -> str:
    """What to do about a connection that fails like this."""
    text = reason.lower()
    if "connection refused" in text:
        return _ROADS[-1][1]
    for words, todo in _ROADS:
        if any(word in text for word in words):
            return todo
    return "check cable, Wi-Fi and router; then ask headquarters whether the broker runs"


def _link(facts: Facts) -> Found:
    link = facts.link
    if link is None:
        return []
    if not link.up:
        if link.away_s < LINK_GRACE_S or _shut_out(facts.identity):
            return []
        names = " and ".join(link.brokers)
        verb = "has" if len(link.brokers) == 1 else "have"
        what = f"The post cannot reach headquarters: {names} {verb} not answered for {span(link.away_s)}"
        return [Diagnosis(Urgency.SOON, "link", what, _and(link.reason, _waiting(facts)), _road(link.reason))]
    if link.silent:
        what = "The broker answers, but nobody at headquarters confirms what the post tells"
        todo = "ask headquarters whether `wardpost station` runs, and whether it knows this site and post"
        return [Diagnosis(Urgency.SOON, "link", what, _waiting(facts), todo)]
    return []


def _shut_out(identity: Identity | None) -> bool:
    """The certificate is why nothing is reached: that is told instead."""
    if identity is None:
        return False
    expired = identity.days_left is not None and identity.days_left < 0
    return not identity.there or bool(identity.fault) or expired or identity.early_days > 0


def _waiting(facts: Facts) -> str:
    outbox = facts.outbox
    if outbox is None:
        return ""
    if not outbox.rows:
        return "nothing waits to be told"
    oldest = "" if outbox.oldest_s is None else f", the oldest for {span(outbox.oldest_s)}"
    return f"nothing is lost: {outbox.rows} messages wait{oldest}, there is room for {outbox.rows_max}"


def _outbox(facts: Facts) -> Found:
    outbox = facts.outbox
    if outbox is None:
        return []
    todo = "bring the link to headquarters back soon; alerts are kept longest"
    waits = outbox.rows > OUTBOX_FULL * outbox.rows_max
    if waits:
        what = f"The list of what headquarters must be told is nearly full: {outbox.rows} of {outbox.rows_max}"
        why = f"{outbox.dropped} messages were given up already" if outbox.dropped else ""
        return [Diagnosis(Urgency.NOW, "outbox", what, why, todo)]
    if outbox.dropped:
        what = f"{outbox.dropped} messages to headquarters were given up for lack of room since the installation"
        return [Diagnosis(Urgency.NOTE, "outbox", what, "what they told of is still on the card's ledger", "")]
    return []


# -- power, machine, clock -------------------------------------------------------------------------------------------

_SUPPLY = "use a supply that gives 5.1 V and 3 A (5 A for a Pi 5) with a short, thick cable"


def _power(facts: Facts) -> Found:
    computer = facts.computer
    if computer is None:
        return []
    found = []
    if computer.mains_lost:
        todo = "bring the mains back; check fuse and plug: the post runs on its battery"
        found.append(Diagnosis(Urgency.NOW, "power", "The mains is lost", computer.mains_lost, todo))
    flags = computer.throttled or ()
    if "under-voltage" in flags:
        what = "The post gets too little voltage now: it may crash, and the card may be damaged"
        found.append(Diagnosis(Urgency.NOW, "power", what, ", ".join(flags), _SUPPLY))
    elif "under-voltage since boot" in flags:
        what = "The post has had too little voltage since it was switched on"
        found.append(Diagnosis(Urgency.SOON, "power", what, ", ".join(flags), _SUPPLY))
    return found


def _cuts(facts: Facts) -> Found:
    found = []
    for dark in facts.dark:
        if dark.cause == "power-off" and dark.times >= CUTS_MANY:
            what = f"The power failed {dark.times} times in the last day, for {span(dark.seconds)} together"
            todo = f"a loose plug, a weak supply or a tired battery: check them; {_SUPPLY}"
            found.append(Diagnosis(Urgency.SOON, "power", what, dark.evidence, todo))
        elif dark.seconds >= SPAN_S_MIN and dark.cause in _CAUSES:
            times = "once" if dark.times == 1 else f"{dark.times} times"
            what = f"In the last day nothing was recorded for {span(dark.seconds)} ({times}): {_CAUSES[dark.cause]}"
            why = f"it ended {span(dark.ago_s)} ago" + (f"; {dark.evidence}" if dark.evidence else "")
            found.append(Diagnosis(Urgency.NOTE, "power" if dark.cause == "power-off" else "recording", what, why))
    return found


_CAUSES = {
    "power-off": "the power was off",
    "agent-stopped": "the agent did not run",
    "camera-fault": "the camera gave no pictures",
    "storage-fault": "the card took nothing",
    "unknown": "nobody knows why",
}


def _heat(facts: Facts) -> Found:
    computer = facts.computer
    if computer is None:
        return []
    flags = set(computer.throttled or ()) & {"throttled", "frequency capped", "soft temperature limit"}
    hot = computer.temperature_c is not None and computer.temperature_c >= HOT_C
    if not hot and not (flags - {"frequency capped"}):
        return []
    degrees = "" if computer.temperature_c is None else f"{computer.temperature_c:g} degrees Celsius"
    todo = "give it shade and air: a heat sink, a lighter enclosure, vents on the underside; lower camera.fps"
    what = "The computer is too hot and slows itself down"
    return [Diagnosis(Urgency.SOON, "heat", what, _and(degrees, ", ".join(sorted(flags))), todo)]


def _memory(facts: Facts) -> Found:
    computer = facts.computer
    if computer is None or computer.memory_available_bytes is None:
        return []
    left = computer.memory_available_bytes
    if left >= MEMORY_BYTES_MIN:
        return []
    what = f"Only {left >> 20} MB of memory are left: Linux may end the agent"
    todo = "stop what else runs on this computer (`ps aux --sort -rss | head`); a Pi with 1 GB or more is meant"
    return [Diagnosis(Urgency.SOON, "memory", what, "", todo)]


def _clock(facts: Facts) -> Found:
    time = facts.time
    if time is None or time.vouched:
        return []
    return [
        Diagnosis(
            Urgency.SOON,
            "clock",
            f"Nobody vouches for the clock{f': it shows {time.says}' if time.says else ''}",
            "no time server was reached since the start; what is recorded keeps its right place once one is",
            "let the post reach a time server (`timedatectl timesync-status` tells), or fit a real-time clock",
        )
    ]


# -- to know ---------------------------------------------------------------------------------------------------------


def _trials(facts: Facts) -> Found:
    trials = facts.trials
    if trials is None:
        return []
    found = []
    if trials.release is not None:
        what = f"Release {trials.release} of the agent is on trial; it is kept or left by itself within minutes"
        found.append(Diagnosis(Urgency.NOTE, "release", what, "", ""))
    if trials.release_failed is not None:
        what = f"Release {trials.release_failed} of the agent was tried and left; the one before runs"
        todo = "tell whoever made it; a better one needs a higher number"
        found.append(Diagnosis(Urgency.SOON, "release", what, trials.release_why, todo))
    if trials.settings is not None:
        what = (
            f"Settings from headquarters (revision {trials.settings}) are on trial; they are kept or left by themselves"
        )
        found.append(Diagnosis(Urgency.NOTE, "settings", what, "", ""))
    if trials.settings_why:
        what = (
            f"Settings from headquarters (revision {trials.settings_seen}) were tried and left; the ones before count"
        )
        found.append(
            Diagnosis(Urgency.SOON, "settings", what, trials.settings_why, "tell headquarters to send better ones")
        )
    return found


def _privacy(facts: Facts) -> Found:
    recording = facts.recording
    if recording is None or recording.privacy_left_s <= 0:
        return []
    what = f"The privacy switch is on: nothing is recorded or watched for {span(recording.privacy_left_s)} still"
    return [Diagnosis(Urgency.NOTE, "privacy", what, "it ends by itself", "")]


RULES: tuple[Callable[[Facts], Found], ...] = (
    _not_running,
    _cannot_start,
    _card,
    _recording,
    _camera,
    _loops,
    _parts,
    _power,
    _view,
    _next_start,
    _not_enrolled,
    _certificate,
    _outbox,
    _link,
    _detector,
    _kept,
    _clock,
    _heat,
    _memory,
    _unasked,
    _trials,
    _privacy,
    _cuts,
)


# -- words -----------------------------------------------------------------------------------------------------------


def _and(*texts: str) -> str:
    return "; ".join(filter(None, texts))
