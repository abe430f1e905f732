// The live board: what the station tells (Server-Sent Events), and acts without leaving the page. Works without it, too.
"use strict";

const LOST_MS = 40000; // two heartbeats of the stream, and some air
const AGAIN_MS = [1000, 2000, 5000, 10000];
const RING_MS = 4000;
const CARDS_MAX = 300;
const $ = (id) => document.getElementById(id);

const board = $("board");
const line = $("line");
const ahead = Date.now() - Number(board.dataset.now); // this clock against the station's
let step = Number(board.dataset.step);
let source = null;
let heard = Date.now();
let failures = 0;
let sick = false;
let again = 0;

function show(state) {
  line.textContent = line.dataset[state];
  line.className = state === "live" || state === "waiting" ? "" : "lost";
}

function say(text) {
  $("said").textContent = text;
  $("said").hidden = !text;
}

// -- cards -----------------------------------------------------------------------------------------------------------

// Open bells, open alerts, the rest; the newest first.
function rank(card) {
  const open = card.dataset.open === "yes";
  return [open ? 0 : 1, card.dataset.severity === "bell" ? 0 : 1, -Number(card.dataset.raised)];
}

function before(one, other) {
  const a = rank(one), b = rank(other);
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return a[i] < b[i];
  return false;
}

function put(part) {
  const made = document.createElement("template");
  made.innerHTML = part.html; // from our own templates, which escape whatever nodes and people say
  const card = made.content.querySelector("article");
  const old = $(card.id);
  // Told twice (the answer to an act, and the stream), or overtaken: the card stays, and so does a finger on it.
  if (old && Number(old.dataset.changed) >= Number(card.dataset.changed)) return;
  const focused = old && old.contains(document.activeElement) ? document.activeElement : null;
  const where = focused ? focused.getAttribute("href") || focused.form?.getAttribute("action") : "";
  if (old) {
    const picture = old.querySelector("img"), next = card.querySelector("img");
    if (picture && next) next.width = picture.clientWidth; // no jump while it loads
    old.remove();
  }
  const place = [...board.children].find((other) => before(card, other));
  board.insertBefore(card, place || null);
  if (focused) {
    const same = [...card.querySelectorAll("button, a.button, a")].find((e) => (e.getAttribute("href") || e.form?.getAttribute("action")) === where);
    (same || card.querySelector("a.button")).focus({ preventScroll: true });
  }
  while (board.children.length > CARDS_MAX) board.lastElementChild.remove();
  $("empty").hidden = board.children.length > 0;
  tick();
}

function tick() {
  const now = Date.now() - ahead;
  for (const due of board.querySelectorAll("[data-due]")) {
    const left = Math.max(0, Math.ceil((Number(due.dataset.due) - now) / 1000));
    due.textContent = `· ${due.dataset.text} ${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
  }
}

// -- the stream ------------------------------------------------------------------------------------------------------

function listen() {
  clearTimeout(again);
  again = 0;
  if (source) source.close();
  show("waiting");
  source = new EventSource(`/board/stream?after=${step}`);
  source.onopen = () => { heard = Date.now(); failures = 0; sick = false; show("live"); };
  source.addEventListener("alert", (event) => {
    heard = Date.now();
    if (event.lastEventId) step = Number(event.lastEventId);
    put(JSON.parse(event.data));
    ring();
  });
  source.addEventListener("state", (event) => {
    heard = Date.now();
    sick = JSON.parse(event.data).sick;
    show(sick ? "sick" : "live");
  });
  source.addEventListener("still", () => { heard = Date.now(); });
  source.addEventListener("left", () => { source.close(); location.assign("/login"); });
  source.onerror = lose;
}

function lose() {
  show("lost");
  source.close();
  if (!again) again = setTimeout(listen, AGAIN_MS[Math.min(failures++, AGAIN_MS.length - 1)]);
}

// -- acts ------------------------------------------------------------------------------------------------------------

board.addEventListener("submit", async (event) => {
  const form = event.target;
  event.preventDefault();
  if (form.dataset.busy) return;
  form.dataset.busy = "yes"; // not disabled: a button that is disabled loses the focus, and who types loses his place
  try {
    const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)), headers: { "X-Wardpost-Part": "card" } });
    if (answer.status === 401) { location.assign("/login"); return; }
    if (!(answer.headers.get("content-type") || "").startsWith("application/json")) throw new Error(answer.status);
    const part = await answer.json();
    put(part);
    say(part.said);
    ring();
  } catch {
    say($("said").dataset.failed);
  } finally {
    delete form.dataset.busy;
  }
});

// -- sound -----------------------------------------------------------------------------------------------------------

const sound = $("sound");
let audio = null;
let rung = 0;

sound.hidden = !window.AudioContext;
sound.addEventListener("click", () => {
  const on = sound.getAttribute("aria-pressed") !== "true";
  sound.setAttribute("aria-pressed", String(on));
  sound.querySelector("span").textContent = on ? sound.dataset.on : sound.dataset.off;
  if (on && !audio) audio = new AudioContext(); // a browser makes sound only after a press
  if (on) { chime(); rung = Date.now(); }
});

function chime() {
  const now = audio.currentTime;
  for (const [after, hertz] of [[0, 880], [0.25, 660], [0.5, 880], [0.75, 660]]) {
    const tone = audio.createOscillator(), loud = audio.createGain();
    tone.frequency.value = hertz;
    loud.gain.setValueAtTime(0.0001, now + after);
    loud.gain.exponentialRampToValueAtTime(0.4, now + after + 0.02);
    loud.gain.exponentialRampToValueAtTime(0.0001, now + after + 0.22);
    tone.connect(loud).connect(audio.destination);
    tone.start(now + after);
    tone.stop(now + after + 0.25);
  }
}

// As long as a bell is open.
function ring() {
  if (!audio || sound.getAttribute("aria-pressed") !== "true" || Date.now() - rung < RING_MS) return;
  if (!board.querySelector('[data-severity="bell"][data-open="yes"]')) return;
  rung = Date.now();
  chime();
}

setInterval(() => {
  tick();
  ring();
  if (Date.now() - heard > LOST_MS && !again) lose();
}, 1000);
tick();
listen();
