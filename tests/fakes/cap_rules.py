"""The Common Alerting Protocol 1.2 as OASIS' standard has it (section 3.2, the data dictionary), as far as a document
can be judged by itself: names, their order, how often each, values, and the forms of times and identifiers."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

NAMESPACE = "{urn:oasis:names:tc:emergency:cap:1.2}"
TIME = re.compile(r"\d\d\d\d-\d\d-\d\dT\d\d:\d\d:\d\d[-+]\d\d:\d\d")
NO_MARKS = re.compile(r"[^\s,<&]+")

# name: (least, most; 0: any number), in the standard's order
ALERT = {
    "identifier": (1, 1),
    "sender": (1, 1),
    "sent": (1, 1),
    "status": (1, 1),
    "msgType": (1, 1),
    "source": (0, 1),
    "scope": (1, 1),
    "restriction": (0, 1),
    "addresses": (0, 1),
    "code": (0, 0),
    "note": (0, 1),
    "references": (0, 1),
    "incidents": (0, 1),
    "info": (0, 0),
}
INFO = {
    "language": (0, 1),
    "category": (1, 0),
    "event": (1, 1),
    "responseType": (0, 0),
    "urgency": (1, 1),
    "severity": (1, 1),
    "certainty": (1, 1),
    "audience": (0, 1),
    "eventCode": (0, 0),
    "effective": (0, 1),
    "onset": (0, 1),
    "expires": (0, 1),
    "senderName": (0, 1),
    "headline": (0, 1),
    "description": (0, 1),
    "instruction": (0, 1),
    "web": (0, 1),
    "contact": (0, 1),
    "parameter": (0, 0),
    "resource": (0, 0),
    "area": (0, 0),
}
AREA = {
    "areaDesc": (1, 1),
    "polygon": (0, 0),
    "circle": (0, 0),
    "geocode": (0, 0),
    "altitude": (0, 1),
    "ceiling": (0, 1),
}
PAIR = {"valueName": (1, 1), "value": (1, 1)}
VALUES = {
    "status": {"Actual", "Exercise", "System", "Test", "Draft"},
    "msgType": {"Alert", "Update", "Cancel", "Ack", "Error"},
    "scope": {"Public", "Restricted", "Private"},
    "category": {
        *("Geo", "Met", "Safety", "Security", "Rescue", "Fire", "Health", "Env", "Transport", "Infra", "CBRNE", "Other")
    },
    "urgency": {"Immediate", "Expected", "Future", "Past", "Unknown"},
    "severity": {"Extreme", "Severe", "Moderate", "Minor", "Unknown"},
    "certainty": {"Observed", "Likely", "Possible", "Unlikely", "Unknown"},
}
_INSIDE = {"info": INFO, "area": AREA, "parameter": PAIR, "geocode": PAIR, "eventCode": PAIR}


def problems(document: bytes) -> list[str]:
    """What is wrong with it; nothing: it is a CAP 1.2 message."""
    root = ET.fromstring(document)
    if root.tag != f"{NAMESPACE}alert":
        return [f"the root is {root.tag}"]
    found = _children(root, ALERT, "alert")
    said = {child.tag.removeprefix(NAMESPACE): child.text or "" for child in root}
    for name in ("identifier", "sender"):
        if not NO_MARKS.fullmatch(said.get(name, "")):
            found.append(f"{name} holds a mark that is forbidden there")
    if said.get("scope") == "Restricted" and not said.get("restriction"):
        found.append("scope is Restricted, and there is no restriction")
    if said.get("scope") == "Private" and not said.get("addresses"):
        found.append("scope is Private, and there are no addresses")
    if said.get("msgType") in ("Update", "Cancel", "Ack", "Error") and not said.get("references"):
        found.append(f"msgType is {said['msgType']}, and there is no reference")
    for reference in said.get("references", "").split():
        parts = reference.split(",")
        if len(parts) != 3 or not TIME.fullmatch(parts[2]):
            found.append(f"reference {reference!r} is not sender,identifier,sent")
    return found


def _children(parent: ET.Element, rules: dict[str, tuple[int, int]], where: str) -> list[str]:
    found = []
    names = [child.tag.removeprefix(NAMESPACE) for child in parent]
    order = [name for name in rules if name in names]
    if list(dict.fromkeys(names)) != order or names != sorted(
        names, key=lambda n: list(rules).index(n) if n in rules else -1
    ):
        found.append(f"{where}: {names} are not in the standard's order {order}")
    for name, (least, most) in rules.items():
        count = names.count(name)
        if count < least or (most and count > most):
            found.append(f"{where}: {count} times {name}")
    for child, name in zip(parent, names, strict=True):
        if name not in rules or child.attrib or not child.tag.startswith(NAMESPACE):
            found.append(f"{where}: {name} is not part of the standard")
        elif name in _INSIDE:
            found += _children(child, _INSIDE[name], f"{where}/{name}")
        else:
            found += _text(child, name, f"{where}/{name}")
    return found


def _text(child: ET.Element, name: str, where: str) -> list[str]:
    text = child.text or ""
    found = [] if text and not len(child) else [f"{where}: no text"]
    if name in VALUES and text not in VALUES[name]:
        found.append(f"{where}: {text!r}")
    if name in ("sent", "effective", "onset", "expires") and not TIME.fullmatch(text):
        found.append(f"{where}: {text!r} is not a time of CAP")
    return found
