// The first page of a school: what is there now comes again by itself. Works without it, too.
"use strict";

const QUIET_MS = 3000; // between two looks, however much happens
const LOST_MS = 40000; // two heartbeats of the stream, and some air
const AGAIN_MS = [1000, 2000, 5000, 10000];

const now = document.getElementById("now");
const line = document.getElementById("line");
const evidence = document.getElementById("evidence");
let step = Number(now.dataset.step);
let source = null;
let heard = Date.now();
let failures = 0;
let again = 0;
let asked = 0;     // when this page last looked
let due = 0;       // the timer of the next look
let looking = false;
let shown = "";    // as it was fetched
let silent = false;
let state = "";    // what the station says of itself: sick or room

function show() {
  const name = silent ? "lost" : state || "live";
  if (line.textContent === line.dataset[name]) return; // else a screen reader would say it again
  line.textContent = line.dataset[name];
  line.className = name === "live" ? "" : "lost";
}

function put(html) {
  if (html === shown) return; // the keyboard keeps its place
  shown = html;
  const where = now.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  now.innerHTML = html; // from our own templates, which escape whatever nodes and people say
  if (where !== null) [...now.querySelectorAll("a")].find((one) => one.getAttribute("href") === where)?.focus({ preventScroll: true });
}

async function look() {
  clearTimeout(due);
  due = 0;
  if (looking) { soon(); return; }
  looking = true;
  asked = Date.now();
  const answer = await fetch("/school", { headers: { "X-Wardpost-Part": "school" } }).catch(() => null);
  if (answer !== null && (answer.redirected || [401, 403, 404].includes(answer.status))) { location.assign("/school"); return; }
  const html = answer !== null && answer.ok ? await answer.text().catch(() => null) : null;
  silent = html === null;
  if (html !== null) put(html);
  show();
  looking = false;
}

// What an alert is about stands in several places of the page: it is fetched whole, not too often.
function soon() {
  if (!due) due = setTimeout(look, Math.max(asked + QUIET_MS - Date.now(), 0));
}

// The board's stream, for the moment in which an alert comes; crowds that are none come with the next regular look.
function listen() {
  again = 0;
  if (source) source.close();
  heard = Date.now();
  source = new EventSource(`/board/stream?after=${step}${evidence.children.length ? "&evidence=1" : ""}`);
  source.onopen = () => { heard = Date.now(); failures = 0; state = ""; show(); };
  source.addEventListener("alert", (event) => {
    heard = Date.now();
    if (event.lastEventId) step = Number(event.lastEventId);
    soon();
  });
  source.addEventListener("evidence", (event) => {
    heard = Date.now();
    witness(evidence, JSON.parse(event.data).html);
    for (const field of evidence.querySelectorAll("[name=back]")) field.value = "/school"; // the board's says: to the board
  });
  source.addEventListener("state", (event) => {
    heard = Date.now();
    const told = JSON.parse(event.data);
    state = !told.sick ? "" : told.full ? "room" : "sick";
    show();
  });
  source.addEventListener("still", () => { heard = Date.now(); });
  source.addEventListener("crowded", () => { source.close(); again = -1; }); // newer pages listen; this one goes on looking
  source.addEventListener("left", () => { source.close(); location.assign("/school"); });
  source.onerror = lose;
}

function lose() {
  source.close();
  if (!again) again = setTimeout(listen, AGAIN_MS[Math.min(failures++, AGAIN_MS.length - 1)]);
}

setInterval(() => {
  if (Date.now() - asked >= now.dataset.refresh * 1000) soon();
  if (Date.now() - heard > LOST_MS && !again) lose();
}, 1000);
asked = Date.now();
line.textContent = line.dataset.waiting;
listen();
