"""axe-core in a page: what somebody with a screen reader or a keyboard alone would stumble over. For tests only."""

from __future__ import annotations

from agent.assets import Asset, Assets
from tests.system.browser import Browser

AXE = Asset(
    name="axe.min.js",
    what="the accessibility checker",  # MPL-2.0: it runs beside the product and is no part of it
    sha256="880970c081707360e64f34cea25ff91892f5bc95675b0776925b9709dd8a68bb",
    client="npm",
    package="axe-core",
    version="4.10.3",
    member="package/axe.min.js",
    megabytes=3,
)
# What fades in has too little contrast until it is there. What blinks for ever is looked at as it is.
_STANDS_STILL = (
    "document.getAnimations().every((one) => one.playState !== 'running'"
    " || one.effect.getComputedTiming().endTime === Infinity)"
)
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa")


def violations(page: Browser, assets: Assets) -> list[str]:
    """What the page does wrong by WCAG 2.1, levels A and AA: a line each, with the first element that does."""
    page.wait(_STANDS_STILL)
    page.js(assets.get(AXE).read_text(encoding="utf-8") + "; true")
    found = page.js(
        f"axe.run(document, {{runOnly: {list(RULES)}}}).then((all) => all.violations.map((one) =>"
        " `${one.id}: ${one.help}: ${one.nodes.length} times, first ${one.nodes[0].target.join(' ')}`))"
    )
    return [str(one) for one in found]
