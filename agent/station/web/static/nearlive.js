// Live stills in the card of a bell, each in the place of its post's alert picture. Without this the links to live view stay.
// What is live is kept by incident and post, not by element: a board replaces cards, and drops what is around a bell once
// somebody has it; the pictures go on in the new card.

const TICK_MS = 1000;
const LOOK_MS = 2000; // the station gives a view up that is not asked for within 15 s
const ANSWER_MS_MAX = 5000;
const OLD_MS = 5000; // behind the moment at which the next picture should have come: what is shown is no longer live
const LATE_MS_MAX = 15000; // post and station end a view by its time; where the station does not answer, this page does
const KEPT = "wardpost.near"; // in the storage of this tab
const TRIED_MAX = 50;
const AGAIN_MS_MAX = 30000; // between a page that had live pictures and the next, on which they go on
const OVER = [403, 404]; // the station knows no such view, or it is not for these eyes any more

const words = document.getElementById("nearlive").dataset;
const board = document.getElementById("board"); // not on the page of one alert
const bells = new Map(); // by incident
const tried = new Set(); // incidents that had their live pictures in this tab: none has them by itself twice
let held = false; // somebody chooses, or leaves: nothing begins by itself
let focused = ""; // the incident whose button has the focus

class Refused extends Error {
  constructor(status) {
    super(String(status));
    this.status = status;
  }
}

async function read(answer) {
  if (answer.status === 401) { location.assign("/login"); throw new Refused(401); }
  if (!(answer.headers.get("content-type") || "").startsWith("application/json")) throw new Refused(answer.status);
  return answer.json();
}

function send(path, fields, more) {
  const body = new URLSearchParams({ form: words.form, ...fields });
  return fetch(`/live/${path}`, { method: "POST", body, headers: { "X-Wardpost-Part": "live" }, ...more });
}

function within(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

// -- one view --------------------------------------------------------------------------------------------------------

class View {
  constructor(bell, place) {
    this.bell = bell;
    this.post = place.dataset.post;
    this.alt = place.dataset.alt;
    this.id = "";
    this.over = false;
    this.why = ""; // of its end, in words
    this.image = null; // the newest picture
    this.shown = 0; // its number, and when it came
    this.came = 0;
    this.period = 0; // ms between pictures, as the post says it
    this.until = 0;
    this.looked = 0;
    this.looking = false;
  }

  // Asks the post. Returns what the station says where it does not; the others are not asked then, for it would say the same.
  async begin() {
    let said = "";
    try {
      const { view } = await read(await send(`${this.post}/open`, {}));
      if (this.over) return "";
      const fields = { mode: "stills", offer: "", reason: this.bell.reason, case: "", bell: this.bell.incident };
      const told = await read(await send(`${this.post}/${view}/begin`, fields));
      said = told.said || "";
      if (!said) {
        this.id = view;
        if (this.over) tell(this);
        else this.take(told);
      }
    } catch {
      said = words.failed;
    }
    if (said) this.finish(said);
    return said;
  }

  async look() {
    this.looking = true;
    this.looked = Date.now();
    try {
      this.take(await read(await fetch(`/live/${this.post}/${this.id}/state`, { signal: AbortSignal.timeout(ANSWER_MS_MAX) })));
    } catch (error) {
      if (OVER.includes(error.status)) this.finish(within(words.over, { why: words.forgotten }));
      else if (Date.now() > this.until + LATE_MS_MAX) this.finish(within(words.over, { why: words.silent }));
    } finally {
      this.looking = false;
    }
  }

  take(told) {
    if (this.over) return;
    this.until = Date.now() + told.left_s * 1000;
    this.period = told.period_s * 1000;
    if (told.over) this.finish(within(words.over, { why: told.over }));
    else if (told.still > this.shown) this.load(told.still);
  }

  // Shown once it is there: never half, and what does not come leaves the one before, which grows old.
  async load(number) {
    const image = new Image();
    image.className = "live";
    image.alt = this.alt;
    image.src = `/live/${this.post}/${this.id}/still?${number}`;
    try { await image.decode(); } catch { return; }
    if (this.over || number <= this.shown) return;
    const first = !this.shown;
    this.shown = number;
    this.came = Date.now();
    this.image = image;
    this.bell.paint();
    if (first) this.bell.announce(`${this.alt}: ${this.says()}`);
  }

  finish(why) {
    if (this.over) return;
    this.over = true;
    this.why = why;
    this.image = null;
    this.bell.paint();
    if (!this.bell.running()) {
      this.bell.announce(why);
      begin();
    }
  }

  isOld() {
    return Date.now() - this.came > this.period + OLD_MS;
  }

  says() {
    if (this.over) return this.why;
    if (!this.image) return words.asking;
    if (this.isOld()) return within(words.old, { seconds: Math.round((Date.now() - this.came) / 1000) });
    return within(words.live, { seconds: this.period / 1000 });
  }
}

// It is enough; the station ends by itself what it does not hear this of.
function tell(view) {
  return view.id ? send(`${view.post}/${view.id}/end`, {}, { keepalive: true }).catch(() => {}) : null;
}

// -- one bell --------------------------------------------------------------------------------------------------------

class Bell {
  constructor(section) {
    this.incident = section.dataset.incident;
    this.reason = section.dataset.reason;
    this.section = section; // where it is shown now
    this.views = new Map(); // by post
  }

  places() {
    return [...this.section.querySelectorAll("li[data-post]")];
  }

  heard() {
    return this.places().filter((place) => place.dataset.heard === "yes");
  }

  running() {
    return [...this.views.values()].some((view) => !view.over);
  }

  // The bell's own post first, as the card has them.
  async begin() {
    tried.add(this.incident);
    this.views.clear();
    for (const place of this.heard().slice(0, Number(words.most))) this.views.set(place.dataset.post, new View(this, place));
    this.paint();
    let refused = "";
    for (const view of [...this.views.values()]) {
      if (refused) view.finish(refused);
      else refused = view.over ? "" : await view.begin();
    }
  }

  end() {
    const going = [...this.views.values()].filter((view) => !view.over);
    const told = going.map(tell);
    for (const view of going) view.finish(within(words.over, { why: words.ended }));
    return Promise.all(told);
  }

  announce(text) {
    document.getElementById("nearlive").textContent = `${this.reason}. ${text}`;
  }

  paint() {
    for (const place of this.places()) this.show(place, this.views.get(place.dataset.post));
    const button = this.section.querySelector(":scope > button"), running = this.running();
    button.hidden = !running && !this.heard().length;
    const text = running ? words.end : tried.has(this.incident) ? words.again : words.begin;
    if (button.textContent !== text) button.textContent = text;
  }

  show(place, view) {
    const image = view?.image || null, mark = place.querySelector(".mark"), live = place.querySelector("img.live");
    const old = Boolean(image) && view.isOld();
    if (live && live !== image) live.remove();
    if (image && live !== image) place.prepend(image);
    if (image) image.classList.toggle("old", old);
    for (const one of place.querySelectorAll("img:not(.live), .picture.none, .taken")) one.hidden = Boolean(image);
    const text = view ? view.says() : "";
    if (mark.textContent !== text) mark.textContent = text;
    mark.hidden = !text;
    mark.classList.toggle("on", Boolean(image) && !old);
  }
}

// -- the page --------------------------------------------------------------------------------------------------------

// Which cards there are now: new ones are known from here on, and what was in one that is gone goes on in its successor.
function look() {
  for (const [incident, bell] of bells) {
    if (bell.section.isConnected) continue;
    const card = document.getElementById(`alert-${incident}`);
    const around = card?.querySelector(".near[data-live]");
    if (around) bell.section = around;
    else if (card && bell.views.size) card.insertBefore(bell.section, card.querySelector(".acts"));
    else {
      bells.delete(incident);
      bell.end();
    }
  }
  for (const section of document.querySelectorAll(".near[data-live]")) {
    const incident = section.dataset.incident;
    if (!bells.has(incident)) bells.set(incident, new Bell(section));
  }
  for (const bell of bells.values()) bell.paint();
  if (focused && document.activeElement === document.body) bells.get(focused)?.section.querySelector(":scope > button").focus({ preventScroll: true });
}

function running() {
  return [...bells.values()].find((bell) => bell.running());
}

// By itself: the newest bell that is open, once, where somebody sees it and no other has live pictures.
function begin() {
  if (held || document.hidden || running()) return;
  const newest = document.querySelector('.near[data-live][data-open="yes"]');
  const bell = newest && bells.get(newest.dataset.incident);
  if (bell && newest.dataset.live === "itself" && !tried.has(bell.incident) && bell.heard().length) bell.begin();
}

function tick() {
  if (document.hidden) return; // nobody looks: the station hears of nobody, and ends it
  const now = Date.now();
  for (const bell of bells.values()) {
    if (!bell.running()) continue;
    for (const view of bell.views.values()) {
      if (!view.over && view.id && !view.looking && now - view.looked >= (view.shown ? LOOK_MS : 0)) view.look();
    }
    bell.paint();
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest(".near[data-live] > button");
  const bell = button && bells.get(button.parentElement.dataset.incident);
  if (!bell) return;
  if (bell.running()) { bell.end(); return; }
  held = true; // else the newest would begin when the one before has its end
  const before = running();
  if (before) await before.end();
  held = false;
  if (!bell.running()) bell.begin();
});

document.addEventListener("focusin", (event) => {
  const button = event.target.closest(".near[data-live] > button");
  focused = button ? button.parentElement.dataset.incident : "";
});

document.addEventListener("visibilitychange", () => {
  tick();
  begin();
});

// Who goes to the page of the alert, or acknowledges there, gets another page: what is live goes on in it, as a view of its own.
window.addEventListener("pagehide", () => {
  const going = running();
  held = true;
  sessionStorage.setItem(KEPT, JSON.stringify({ tried: [...tried].slice(-TRIED_MAX), going: going?.incident, at: Date.now() }));
  for (const bell of bells.values()) bell.end();
});

window.addEventListener("pageshow", () => { held = false; });

function goOn() {
  const kept = JSON.parse(sessionStorage.getItem(KEPT) || "{}");
  sessionStorage.removeItem(KEPT); // a tab that is opened from here does not go on with what this one shows
  for (const incident of kept.tried || []) tried.add(incident);
  const bell = bells.get(kept.going);
  if (bell && !document.hidden && Date.now() - kept.at < AGAIN_MS_MAX && bell.heard().length) bell.begin();
}

if (board) new MutationObserver(() => { look(); begin(); }).observe(board, { childList: true });
look();
goOn();
begin();
setInterval(tick, TICK_MS);
