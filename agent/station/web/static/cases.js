// A package of this case is being made: its part of the page comes again until it is there. Works without it, too.
"use strict";

const box = document.getElementById("packages");

// The page must not go away under somebody who writes on it.
function writing() {
  const fields = [...document.querySelectorAll("main input:not([type=hidden])")];
  return fields.some((one) => one === document.activeElement || one.value !== one.defaultValue);
}

let shown = "";

function again() {
  location.assign(box.dataset.page); // not reload: the page may be the answer to a form
}

function put(html) {
  if (html === shown) return; // else a screen reader would say it again, and the keyboard lose its place
  shown = html;
  box.innerHTML = html; // from our own templates, which escape whatever nodes and people say
  const { made, seen } = box.firstElementChild.dataset;
  if (made === "yes" && !writing()) { again(); return; } // it is on the timeline, and so is what else was done
  // Who goes on writing has been shown here all that was done since: his act is not refused for it.
  if (seen) for (const field of document.querySelectorAll("input[name=seen]")) field.value = seen;
}

async function refresh() {
  if (box.firstElementChild.dataset.busy !== "yes") return;
  const answer = await fetch(box.dataset.part, { headers: { "X-Wardpost-Part": "packages" } }).catch(() => null);
  if (answer !== null && [401, 403, 404].includes(answer.status)) { again(); return; } // logged out, most likely
  const html = answer !== null && answer.ok ? await answer.text().catch(() => null) : null;
  if (html !== null) put(html);
  else box.querySelector(".silent").hidden = false; // what stands there may be old
  setTimeout(refresh, box.dataset.refresh * 1000);
}

setTimeout(refresh, box.dataset.refresh * 1000);
