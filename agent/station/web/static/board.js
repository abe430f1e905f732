// The live board: what the station tells (Server-Sent Events), and acts without leaving the page. Works without it, too.
"use strict";

const LOST_MS = 40000; // two heartbeats of the stream, and some air
const AGAIN_MS = [1000, 2000, 5000, 10000];
const RING_MS = 4000;
const CARDS_MAX = 300;
const RENEW_MS = 3000; // between looks for what is open and not shown
const $ = (id) => document.getElementById(id);

const board = $("board");
const line = $("line");
const ahead = Date.now() - Number(board.dataset.now); // this clock against the station's
let step = Number(board.dataset.step);
let source = null;
let heard = Date.now();
let failures = 0;
let sick = false;
let again = 0; // the timer of the next try; below 0: there is none
let renewing = 0;
const more = $("more");
let open = Number(more.dataset.open); // of the station's alerts; more than it counts, where it is above data-most

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

// Of what is open but not on this page the stream tells nothing: where some of what is shown is answered, they follow.
function put(part) {
  if (!place(part)) return;
  tellMore();
  if (open > openHere()) renewSoon();
}

function openHere() {
  return board.querySelectorAll('[data-open="yes"]').length;
}

function tellMore() {
  const here = openHere(), most = Number(more.dataset.most), many = open > most;
  const skip = Number(more.dataset.skip), next = more.querySelector("[rel=next]");
  more.hidden = open <= here && !skip;
  if (next) next.href = `/?skip=${skip + here}`;
  const text = (many ? more.dataset.many : more.dataset.some).replace("{open}", Math.min(open, most)).replace("{here}", here);
  if (more.firstElementChild.textContent !== text) more.firstElementChild.textContent = text;
}

function renewSoon() {
  if (!renewing) renewing = setTimeout(renew, openHere() ? RENEW_MS : 0);
}

async function renew() {
  try {
    const answer = await fetch(location.pathname + location.search, { headers: { "X-Wardpost-Part": "board" } });
    if (answer.ok) {
      const told = await answer.json();
      for (const part of told.cards) place(part);
      open = told.open;
    }
    renewing = 0;
    tellMore();
    if (!answer.ok && answer.status >= 500) renewSoon();
  } catch {
    renewing = setTimeout(renew, RENEW_MS);
  }
}

// Whether it is news.
function place(part) {
  const made = document.createElement("template");
  made.innerHTML = part.html; // from our own templates, which escape whatever nodes and people say
  const card = made.content.querySelector("article");
  const old = $(card.id);
  // Told twice (the answer to an act, and the stream), or overtaken: the card stays, and so does a finger on it.
  if (old && Number(old.dataset.changed) >= Number(card.dataset.changed)) return false;
  if (old?.dataset.open !== card.dataset.open && (old || card.dataset.open === "yes")) open += card.dataset.open === "yes" ? 1 : -1;
  const focused = old && old.contains(document.activeElement) ? document.activeElement : null;
  const where = focused ? focused.getAttribute("href") || focused.form?.getAttribute("action") : "";
  if (old) {
    const picture = old.querySelector("img"), next = card.querySelector("img");
    if (picture && next) next.width = picture.clientWidth; // no jump while it loads
    old.remove();
  }
  board.insertBefore(card, [...board.children].find((other) => before(card, other)) || null);
  if (focused) {
    const same = [...card.querySelectorAll("button, a.button, a")].find((e) => (e.getAttribute("href") || e.form?.getAttribute("action")) === where);
    (same || card.querySelector("a.button")).focus({ preventScroll: true });
  }
  while (board.children.length > CARDS_MAX) board.lastElementChild.remove();
  $("empty").hidden = board.children.length > 0;
  tick();
  return true;
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
  source = new EventSource(`/board/stream?after=${step}${$("evidence").children.length ? "&evidence=1" : ""}`);
  source.onopen = () => { heard = Date.now(); failures = 0; sick = false; show("live"); };
  source.addEventListener("alert", (event) => {
    heard = Date.now();
    if (event.lastEventId) step = Number(event.lastEventId);
    put(JSON.parse(event.data));
    ring();
  });
  source.addEventListener("evidence", (event) => {
    heard = Date.now();
    witness($("evidence"), JSON.parse(event.data).html);
  });
  source.addEventListener("state", (event) => {
    heard = Date.now();
    const state = JSON.parse(event.data);
    sick = state.sick;
    show(!sick ? "live" : state.full ? "room" : "sick");
  });
  source.addEventListener("still", () => { heard = Date.now(); });
  source.addEventListener("crowded", () => { // the same person's newer boards go on; coming again would end one of them
    source.close();
    again = -1;
    show("crowded");
  });
  source.addEventListener("left", () => { source.close(); location.assign("/login"); });
  source.onerror = lose;
}

function lose() {
  show("lost");
  source.close();
  if (!again) again = setTimeout(listen, AGAIN_MS[Math.min(failures++, AGAIN_MS.length - 1)]);
}

// -- acts ------------------------------------------------------------------------------------------------------------

for (const box of [board, $("evidence")]) box.addEventListener("submit", async (event) => {
  const form = event.target;
  event.preventDefault();
  if (form.dataset.busy) return;
  form.dataset.busy = "yes"; // not disabled: a button that is disabled loses the focus, and who types loses his place
  try {
    const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)), headers: { "X-Wardpost-Part": "card" } });
    if (answer.status === 401) { location.assign("/login"); return; }
    if (!(answer.headers.get("content-type") || "").startsWith("application/json")) throw new Error(answer.status);
    const part = await answer.json();
    if (box === board) put(part);
    else witness(box, part.html);
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
