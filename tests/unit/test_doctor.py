"""`wardpost doctor`, judged: facts in, words out. Every rule speaks when it should, and a post that is well is left so."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent import wire
from agent.doctor import rules
from agent.doctor.facts import (
    Camera,
    Card,
    Computer,
    Dark,
    Facts,
    Identity,
    Link,
    Outbox,
    Part,
    Recording,
    Service,
    Stopped,
    Time,
    Trials,
)
from agent.doctor.rules import RULES, Diagnosis, Urgency, as_reply, diagnose, in_words, summary
from agent.quantities import span

NOW, SOON, NOTE = Urgency.NOW, Urgency.SOON, Urgency.NOTE
WELL = Facts(
    camera=Camera(),
    recording=Recording(),
    card=Card(),
    link=Link(),
    outbox=Outbox(),
    identity=Identity(days_left=300.0),
    computer=Computer(),
    time=Time(),
    trials=Trials(),
    parts=(Part("camera"), Part("recorder")),
)
GONE = Facts(stopped=Stopped(folder="/d", ended="it was stopped (stopped)", silent_s=7300.0))


def well(**parts: object) -> Facts:
    return replace(WELL, **parts)  # type: ignore[arg-type]


def gone(starts: int = 1, **stopped: object) -> Facts:
    assert GONE.stopped is not None
    return Facts(stopped=replace(GONE.stopped, **stopped), starts=starts)  # type: ignore[arg-type]


NO_PICTURES = "The camera gives no pictures: rtsp://cam/1: connection refused"
# what the world did -> the facts, the rule that speaks, its urgency, and words that must stand in what it says
CASES: dict[str, tuple[Facts, str, Urgency, tuple[str, ...]]] = {
    "nobody started it": (gone(), "_not_running", NOW, ("does not run, for 2 h", "it was stopped", "systemctl start")),
    "never": (gone(never=True, silent_s=None), "_not_running", NOW, ("has never run on this card",)),
    "not switched on": (gone(service=Service("inactive", enabled=False)), "_not_running", NOW, ("enable --now",)),
    "systemd tries in vain": (
        gone(service=Service("activating", restarts=12, exit_code=78), objections=("camera.url: missing",)),
        "_not_running",
        NOW,
        ("ended with 78", "started again 12 times", "mend what is told below"),
    ),
    "it hangs": (
        gone(holder="4711", said="no answer within 20 s"),
        "_not_running",
        NOW,
        ("does not answer", "process 4711", "no answer within 20 s", "restart"),
    ),
    "settings": (gone(objections=("camera.url: missing",)), "_cannot_start", NOW, ("cannot start", "camera.url: missing")),
    "folder": (gone(folder_fault="/d: No such file"), "_cannot_start", NOW, ("data folder", "/d: No such", "mount")),
    "store": (gone(store_fault="/d/wardpost.db: not a database"), "_cannot_start", NOW, ("memory", "rebuilds it")),
    "crash loop": (well(starts=9), "_loops", NOW, ("9 times in the last hour", "release rollback")),
    "crash loop, seen between two starts": (gone(starts=9), "_loops", NOW, ("9 times",)),
    "a vital part is down": (
        well(parts=(Part("vision", 2, "no memory for the model"),)),
        "_parts",
        NOW,
        ("watches for people", "no memory for the model"),
    ),
    "another part is down": (well(parts=(Part("panel", 2, "pin 4 is held"),)), "_parts", SOON, ("reads bell", "pin 4")),
    "a part flaps": (well(parts=(Part("ledger", 3, up_s=20.0),)), "_parts", SOON, ("signs the evidence", "fallen 3 times")),
    "a part nobody can ask": (well(unasked=(("coverage", "disk I/O error"),)), "_unasked", SOON, ("coverage", "I/O")),
    "card read-only": (well(card=Card(read_only=True)), "_card", NOW, ("read-only", "replace the card")),
    "card gone": (well(card=Card(fault="/d: Input/output error")), "_card", NOW, ("Input/output error",)),
    "card full of footage": (
        well(card=Card(free_bytes=10**8, footage_bytes=60 * 10**9)),
        "_card",
        SOON,
        ("nearly full", "100 MB of 64.0 GB are free", "budget_gb"),
    ),
    "card full of other things": (
        well(card=Card(free_bytes=10**8, footage_bytes=10**9)),
        "_card",
        SOON,
        ("not of footage", "other things 62.9 GB", "du -xh"),
    ),
    "recorder": (
        well(recording=Recording(on=False, fault="cannot write: No space left on device; free some space")),
        "_recording",
        NOW,
        ("Nothing is recorded", "No space left"),
    ),
    "recorder silent": (well(recording=Recording(on=False)), "_recording", NOW, ("although the camera gives pictures",)),
    "camera": (
        well(camera=Camera(up=False, age_s=245.0, fault=NO_PICTURES)),
        "_camera",
        NOW,
        ("no pictures, for 4 min", "rtsp://cam/1: connection refused", "ribbon cable"),
    ),
    "camera never": (well(camera=Camera(up=False, ever=False, age_s=None)), "_camera", NOW, ("since the agent started",)),
    "camera flaps": (well(camera=Camera(restarts=3)), "_camera", SOON, ("lost 3 times", "cable")),
    "camera slow": (well(camera=Camera(fps=6.0, fps_wanted=15.0)), "_camera", SOON, ("6 pictures a second instead of 15",)),
    "view": (well(views=("The view is covered",)), "_view", NOW, ("The view is covered", "clean the lens")),
    "detector": (well(detector_fault="ssd.tflite is missing"), "_detector", SOON, ("Nobody is told apart", "model fetch")),
    "no certificate": (
        well(identity=Identity(path="/i/node.pem", there=False)),
        "_not_enrolled",
        NOW,
        ("no certificate and no claim", "/i/node.pem", "provision NODE --again"),
    ),
    "not enrolled": (
        well(identity=Identity(there=False, claim=True, claim_expires="2026-12-01"), outbox=Outbox(rows=7)),
        "_not_enrolled",
        SOON,
        ("not enrolled yet: it records", "until 2026-12-01", "7 messages wait"),
    ),
    "refused": (
        well(identity=Identity(there=False, claim=True, refused="claim-used: by another card")),
        "_not_enrolled",
        NOW,
        ("refuses this card", "claim-used: by another card", "--again"),
    ),
    "certificate rotten": (well(identity=Identity(fault="it holds no certificate")), "_certificate", NOW, ("be read",)),
    "certificate expired": (
        well(
            identity=Identity(days_left=-3.0), outbox=Outbox(rows=5), time=Time(vouched=False),
            link=Link(up=False, away_s=9000.0, reason="closed before it was up"),
        ),
        "_certificate",
        NOW,
        ("expired 3 days ago", "5 messages wait", "the clock may be wrong"),
    ),
    "certificate of tomorrow": (
        well(identity=Identity(days_left=365.0, early_days=400.0)),
        "_certificate",
        NOW,
        ("not valid for another 400 days", "clock"),
    ),
    "certificate soon": (well(identity=Identity(days_left=12.2)), "_certificate", SOON, ("expires in 12 days",)),
    "certificate overdue": (
        well(identity=Identity(days_left=150.0, life_days=1095.0)),
        "_certificate",
        SOON,
        ("expires in 150 days, and should have been renewed", "station.register", "site brokers"),
    ),
    "certificate not renewed": (
        well(identity=Identity(days_left=300.0, life_days=1095.0, not_renewed="revoked: stolen")),
        "_certificate",
        SOON,
        ("does not renew", "good for another 300 days", "revoked: stolen", "claim.key"),
    ),
    "certificate expired, a claim lies there": (
        well(identity=Identity(days_left=-3.0, claim=True)),
        "_certificate",
        NOW,
        ("expired 3 days ago", "systemctl start wardpost-enrol"),
    ),
    "broker away": (
        well(
            link=Link(up=False, away_s=10_800.0, reason="connection refused; is the broker running?"),
            outbox=Outbox(rows=214, oldest_s=10_000.0),
        ),
        "_link",
        SOON,
        (
            "The post cannot reach headquarters: mqtts://hq:8883 has not answered for 3 h",
            "nothing is lost: 214 messages wait, the oldest for 3 h, there is room for 50000",
            "ask headquarters whether the broker runs",
        ),
    ),
    "name unknown": (
        well(link=Link(up=False, away_s=60.0, reason="hq: Name or service not known")),
        "_link",
        SOON,
        ("check cable, Wi-Fi and router", "nothing waits"),
    ),
    "two brokers, shut out": (
        well(link=Link(brokers=("mqtt://a:1", "mqtt://b:1"), up=False, away_s=60.0, reason="the broker refuses: no")),
        "_link",
        SOON,
        ("mqtt://a:1 and mqtt://b:1 have not answered", "does not let the post in"),
    ),
    "wrong authority": (
        well(link=Link(up=False, away_s=60.0, reason="the broker's certificate is not trusted: self-signed")),
        "_link",
        SOON,
        ("uplink.tls",),
    ),
    "station silent": (well(link=Link(silent=True)), "_link", SOON, ("nobody at headquarters confirms", "wardpost station")),
    "outbox full": (well(outbox=Outbox(rows=45_000, dropped=3)), "_outbox", NOW, ("45000 of 50000", "3 messages")),
    "outbox once shed": (well(outbox=Outbox(dropped=3)), "_outbox", NOTE, ("3 messages",)),
    "mains": (well(computer=Computer(mains_lost="The mains is gone")), "_power", NOW, ("battery",)),
    "too little voltage": (
        well(computer=Computer(throttled=("under-voltage", "under-voltage since boot"))),
        "_power",
        NOW,
        ("too little voltage now", "5.1 V"),
    ),
    "voltage was low": (
        well(computer=Computer(throttled=("under-voltage since boot",))),
        "_power",
        SOON,
        ("has had too little voltage",),
    ),
    "hot": (well(computer=Computer(temperature_c=84.0)), "_heat", SOON, ("too hot", "84 degrees", "shade")),
    "slowed by heat": (well(computer=Computer(throttled=("throttled",))), "_heat", SOON, ("slows itself down",)),
    "memory": (well(computer=Computer(memory_available_bytes=20 << 20)), "_memory", SOON, ("Only 20 MB",)),
    "clock": (well(time=Time(vouched=False, says="2026-11-22T05:54Z")), "_clock", SOON, ("2026-11-22T05:54Z", "time server")),
    "seal key": (
        well(objections=("recording.seal_key: /k.pub: no public key can be read there",)),
        "_next_start",
        NOW,
        ("will not start again", "recording.seal_key", "before the next power cut"),
    ),
    "release on trial": (well(trials=Trials(release=12)), "_trials", NOTE, ("Release 12", "on trial")),
    "release left": (
        well(trials=Trials(release_failed=12, release_why="no frames within 300 s")),
        "_trials",
        SOON,
        ("Release 12", "no frames within 300 s"),
    ),
    "settings on trial": (well(trials=Trials(settings=4)), "_trials", NOTE, ("revision 4", "on trial")),
    "settings left": (
        well(trials=Trials(settings_why="the station is not reached", settings_seen=4)),
        "_trials",
        SOON,
        ("revision 4", "the station is not reached"),
    ),
    "privacy": (
        well(recording=Recording(on=False, privacy_left_s=600.0)),
        "_privacy",
        NOTE,
        ("privacy switch is on", "for 10 min still"),
    ),
    "short of room": (
        well(recording=Recording(kept_s=40_000.0, overwrite_s=1800.0)),
        "_kept",
        SOON,
        ("only 11 h of footage", "goes in 30 min", "larger card"),
    ),
    "unsent footage goes": (well(recording=Recording(unsent_s=7200.0)), "_kept", SOON, ("not received yet goes in 2 h",)),
    "one cut": (
        well(dark=(Dark("power-off", 1, 300.0, 7300.0, "mains input: lost"),)),
        "_cuts",
        NOTE,
        ("for 5 min (once): the power was off", "ended 2 h ago", "mains input: lost"),
    ),
    "many cuts": (well(dark=(Dark("power-off", 5, 50.0, 60.0),)), "_cuts", SOON, ("failed 5 times", "loose plug")),
    "a camera that was away": (well(dark=(Dark("camera-fault", 2, 400.0, 60.0),)), "_cuts", NOTE, ("2 times",)),
}  # fmt: skip


def test_a_post_that_is_well_is_told_so() -> None:
    assert diagnose(WELL) == []
    reply = as_reply([])
    assert reply == {"well": True, "summary": "Nothing is wrong.", "diagnoses": []}
    assert in_words(reply) == "Nothing is wrong."


@pytest.mark.parametrize("name", CASES)
def test_each_trouble_is_told_in_words_with_what_to_do(name: str) -> None:
    facts, rule, urgency, words = CASES[name]
    (speaks,) = [one for one in RULES if one.__name__ == rule]
    (first, *_) = speaks(facts)
    said = f"{first.what} {first.why} {first.todo}"
    assert [word for word in words if word not in said] == [], said
    assert first.urgency is urgency
    assert first in diagnose(facts)
    assert first.todo or urgency is NOTE, "who is told that something is wrong is told what to do"
    assert first.what[0].isupper() or first.what[0].isdigit()
    assert as_reply([first])["well"] is (urgency is NOTE)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][0].stopped is None])
def test_one_trouble_is_told_once(name: str) -> None:
    """What follows from it is not told as troubles of their own."""
    expected = {"certificate expired": 2}.get(name, 1)  # ... and the clock, of which nobody is sure
    assert len(diagnose(CASES[name][0])) == expected, [one.what for one in diagnose(CASES[name][0])]


def test_every_rule_is_tried() -> None:
    assert {rule for _, rule, _, _ in CASES.values()} == {rule.__name__ for rule in RULES}


QUIET = {
    "it is connecting": well(link=Link(up=False, away_s=rules.LINK_GRACE_S - 1)),
    "the camera starts": replace(
        WELL, age_s=5.0, camera=Camera(up=False, ever=False, age_s=None), recording=Recording(on=False)
    ),
    "a part came back twice": well(parts=(Part("camera", 2, up_s=20.0),)),
    "a part that was mended long ago": well(parts=(Part("uplink", 90),)),
    "a camera that was lost now and then in a year": replace(WELL, age_s=365 * 86_400.0, camera=Camera(restarts=40)),
    "a part tries until the post is enrolled": well(
        link=Link(up=False, away_s=5.0), parts=(Part("uplink", 90, "", 0.1),)
    ),
    "a young post with a small card": well(recording=Recording(kept_s=3600.0, overwrite_s=50_000.0)),
    "old footage goes, as it should": well(recording=Recording(kept_s=800_000.0, overwrite_s=60.0)),
    "a month to go": well(identity=Identity(days_left=31.0)),
    "a certificate in its last third, which renews by itself": well(
        identity=Identity(days_left=300.0, life_days=1095.0)
    ),
    "an update and its starts": well(starts=rules.STARTS_MAX),
    "a machine that tells nothing": well(computer=Computer(None, None, None)),
    "seconds of a restart": well(dark=(Dark("agent-stopped", 1, 20.0, 600.0),)),
    "no certificate is wanted": well(identity=None),
    "a stream decides its own rate": well(camera=Camera(fps=1.0, fps_wanted=None)),
}


@pytest.mark.parametrize("name", QUIET)
def test_what_is_no_trouble_is_not_told(name: str) -> None:
    assert diagnose(QUIET[name]) == []


def test_the_cause_is_told_and_not_what_follows_from_it() -> None:
    """An expired certificate: no broker, a part that is down. A camera away: nothing recorded, a part that is down."""
    down = Link(up=False, away_s=9000.0, reason="the broker's certificate is not trusted")
    expired = diagnose(
        well(identity=Identity(days_left=-1.0), link=down, parts=(Part("uplink", 4, "tls.cert: cannot be read"),))
    )
    assert [one.part for one in expired] == ["certificate"]
    away = diagnose(
        well(
            camera=Camera(up=False, age_s=60.0),
            recording=Recording(on=False),
            parts=(Part("camera", 1, "it is stuck"),),
        )
    )
    assert [one.part for one in away] == ["camera"]


def test_a_post_that_is_let_in_has_a_wrong_clock_and_no_wrong_certificate() -> None:
    """Dates of its own certificate are nothing to a post; the broker judges them, by a clock that is kept."""
    for wrong in (Identity(days_left=-20_000.0), Identity(days_left=20_000.0, early_days=19_000.0)):
        assert [one.part for one in diagnose(well(identity=wrong, time=Time(vouched=False)))] == ["clock"]


def test_the_most_urgent_comes_first_and_notes_are_not_wrong() -> None:
    found = diagnose(
        well(
            card=Card(read_only=True),
            time=Time(vouched=False),
            link=Link(silent=True),
            trials=Trials(release=3),
            views=("The view is covered",),
        )
    )
    assert [one.urgency for one in found] == [NOW, NOW, SOON, SOON, NOTE]
    assert [one.part for one in found] == ["card", "view", "link", "clock", "release"]
    assert summary(found) == "The card has become read-only: nothing is recorded any more. And 3 things more."
    text = in_words(as_reply(found)).splitlines()
    assert text[0].startswith("NOW: The card") and text[2].startswith("    do:  save the footage")
    assert text[-1].startswith("to know: Release 3")
    notes = as_reply([one for one in found if one.urgency is NOTE])
    assert notes["well"] and in_words(notes).splitlines()[0] == "Nothing is wrong."


@example("\N{MUSICAL SYMBOL G CLEF}" * 3000, 11)
@example('"' * 3000, 11)
@given(st.text(max_size=3000), st.integers(1, 12))
def test_whatever_a_part_says_the_answer_fits_into_a_reply_and_one_line_each(text: str, parts: int) -> None:
    names = list(rules._TASKS)[:parts]
    facts = replace(
        WELL,
        camera=Camera(up=False, fault=text),
        detector_fault=text,
        views=(text,) * 8,
        objections=(text,) * 6,
        parts=tuple(Part(name, 1, text) for name in names),
    )
    reply = as_reply(diagnose(facts))
    wire.encode(wire.Reply(id="00000000-0000-7000-8000-000000000000", state="done", result=reply))
    assert msgspec.json.decode(msgspec.json.encode(reply)) == reply
    assert reply["diagnoses"][0]["part"] == "camera"
    for one in reply["diagnoses"]:
        assert all(len(value) <= rules.TEXT_CHARS_MAX and "\n" not in value for value in one.values())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "0 s"), (-5.0, "0 s"), (119.4, "119 s"), (120.0, "2 min"), (7199.0, "120 min"), (7200.0, "2 h"), (172_800.0, "2 days")],
)  # fmt: skip
def test_times_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_a_diagnosis_is_json() -> None:
    one = Diagnosis(NOW, "card", "It is full", "a\nb", "").as_dict()
    assert one == {"urgency": "now", "part": "card", "what": "It is full", "why": "a | b", "todo": ""}
