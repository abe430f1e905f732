// The page of an installation: picture, checks, trials. Words come from words.<language>.json.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const STILL_MS_MIN = 250; // four pictures a second at most
const STATE_MS = 1000;
const BELL_MS = 60000;
const HORIZON = 0.1; // heads of adults at the limit: hardware/enclosure.md
const TRIALS = ["bell", "siren", "lamp", "led"];
const $ = (id) => document.getElementById(id);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

const stored = (() => { try { return sessionStorage; } catch { return {}; } })();
let token = stored.token || "";
let words = {};
let language = stored.language || (navigator.language.toLowerCase().startsWith("vi") ? "vi" : "en");
let state = null;
let grid = true;
let number = 0;
let shown = null; // the newest scene, with its age
let bell = null; // {times, until}
let answers = {}; // trial -> [mood, word]
let over = false;
let lost = false;

const word = (key, values = {}) =>
  (words[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => (values[name] === undefined ? "" : values[name]));

async function ask(path, body) {
  const options = { headers: { "X-Wardpost-Token": token } };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(path, options);
  if (answer.status === 401) {
    over = Boolean(state) && state.left_s <= 3;
    leave();
    throw Object.assign(new Error("401"), { status: 401 });
  }
  return answer;
}

function leave() {
  token = "";
  delete stored.token;
  render();
}

function say(text, mood = "") {
  $("said").textContent = text;
  $("said").className = mood;
  $("said").hidden = !text;
}

async function speak(to) {
  words = await (await fetch(`/words.${to}.json`)).json();
  language = stored.language = to;
  document.documentElement.lang = to;
  for (const one of document.querySelectorAll("[data-word]")) one.textContent = word(one.dataset.word);
  $("language").textContent = to === "vi" ? "English" : "Tiếng Việt";
  $("language").lang = to === "vi" ? "en" : "vi";
  render();
}

// -- picture ---------------------------------------------------------------------------------------------------------

function element(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

// The smallest person that is surely one, whole or tall enough: the far edge decides.
function judged() {
  const people = shown ? shown.scene.things.filter((thing) => thing.label === "person" && thing.sure) : [];
  const whole = people.filter((thing) => thing.enough || !thing.cut);
  return { people, smallest: whole.length ? whole.reduce((one, other) => (other.px < one.px ? other : one)) : null };
}

function draw() {
  const svg = $("marks");
  const { width, height } = $("picture").getBoundingClientRect();
  if (!width || !height) return;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  if (grid) {
    for (const third of [1 / 3, 2 / 3]) {
      element("line", { class: "grid", x1: third * width, y1: 0, x2: third * width, y2: height }, svg);
      element("line", { class: "grid", x1: 0, y1: third * height, x2: width, y2: third * height }, svg);
    }
    element("line", { class: "horizon", x1: 0, y1: HORIZON * height, x2: width, y2: HORIZON * height }, svg);
  }
  if (!shown) return;
  const { scene } = shown;
  const rect = (box, css) => element("rect",
    { class: css, x: box[0] * width, y: box[1] * height, width: box[2] * width, height: box[3] * height }, svg);
  const pixels = $("picture").naturalHeight; // 0 until the first has come
  const least = pixels ? (scene.least_px / pixels) * height : 0;
  if (grid && least) element("line", { class: "ruler", x1: 6, x2: 6, y1: height - 6 - least, y2: height - 6 }, svg);
  for (const box of scene.motion) rect(box, "motion");
  const { smallest } = judged();
  for (const thing of scene.things) {
    const person = thing.label === "person";
    const mood = person && thing.sure ? (thing.enough ? " enough" : " small") : "";
    rect(thing.box, `thing${mood}${thing === smallest ? " smallest" : ""}`);
    if (thing !== smallest && width < 600) continue; // on a phone there is room for the one that decides
    const y = thing.box[1] * height;
    const text = element("text", { class: "label", y: y > 20 ? y - 5 : y + 18 }, svg);
    text.textContent = `${word(`label.${thing.label}`)} ${thing.px} px`;
    text.setAttribute("x", Math.max(Math.min(thing.box[0] * width, width - text.getComputedTextLength() - 4), 4));
  }
}

function verdict() {
  const { people, smallest } = judged();
  let text = word("aim.nobody");
  let mood = "";
  if (smallest) {
    text = word(smallest.enough ? "aim.enough" : "aim.small", { px: smallest.px, least: shown.scene.least_px });
    mood = smallest.enough ? "good" : "bad";
  } else if (people.length) {
    text = word("aim.cut");
    mood = "bad";
  } else if (shown && shown.scene.motion.length) text = word("aim.moves");
  if ($("verdict").textContent !== text) $("verdict").textContent = text;
  $("verdict").className = mood;
}

async function watch() {
  for (;;) {
    const began = performance.now();
    if (!token || over || document.hidden) {
      await sleep(STILL_MS_MIN);
      continue;
    }
    try {
      const answer = await ask(`/setup/still/${number}`);
      if (answer.ok) {
        const scene = JSON.parse(answer.headers.get("X-Wardpost-Scene"));
        const age = Number(answer.headers.get("X-Wardpost-Age-Ms"));
        number = Number(answer.headers.get("X-Wardpost-Number"));
        await show(await answer.blob());
        shown = { scene, at: performance.now() - age };
      }
      if (answer.status === 404 && shown && performance.now() - shown.at > 30000) number = 0; // the node began anew
    } catch {
      number = 0;
      await sleep(500);
    }
    look();
    await sleep(Math.max(STILL_MS_MIN - (performance.now() - began), 0));
  }
}

// Exchanged when it is decoded: a picture whose source is set has no size until it has come.
async function show(blob) {
  const old = $("picture");
  const next = old.cloneNode();
  next.src = URL.createObjectURL(blob);
  try {
    await next.decode();
  } catch (error) {
    URL.revokeObjectURL(next.src);
    throw error;
  }
  old.replaceWith(next);
  if (old.src) URL.revokeObjectURL(old.src);
}

function look() {
  const age = shown ? (performance.now() - shown.at) / 1000 : Infinity;
  const privacy = state ? state.privacy_s : 0;
  $("dark").hidden = age < 5 && !privacy;
  $("dark").textContent = privacy ? word("aim.privacy", { value: Math.ceil(privacy) }) : word("aim.dark");
  $("age").textContent = shown ? word("aim.age", { value: age.toFixed(1) }) : "";
  if (age >= 5) shown = age === Infinity ? null : { ...shown, scene: { ...shown.scene, motion: [], things: [] } };
  draw();
  verdict();
}

// -- checks and trials -----------------------------------------------------------------------------------------------

function made(tag, css, text) {
  const one = document.createElement(tag);
  one.className = css;
  one.textContent = text;
  return one;
}

function checks() {
  $("checks").replaceChildren(...state.checks.map((check) => {
    const mood = check.ok ? "good" : "bad";
    const row = made("li", mood, "");
    row.dataset.check = check.id;
    row.append(made("span", "sign", check.ok ? "✓" : "✗"), made("span", "name", word(`check.${check.id}`)),
      made("span", "told", word(`check.${check.id}.${mood}`, { value: check.value })));
    return row;
  }));
  const found = state.doctor.diagnoses ?? [];
  $("doctor").hidden = !found.length;
  $("findings").replaceChildren(...found.map((one) =>
    made("li", one.urgency, [one.what, one.why, one.todo].filter(Boolean).join(" — "))));
}

function trials() {
  if (bell && state.wires.bell.times > bell.times) {
    answers.bell = ["good", "try.bell.good"];
    bell = null;
  } else if (bell && performance.now() > bell.until) {
    answers.bell = ["bad", "try.bell.bad"];
    bell = null;
  }
  for (const what of TRIALS) {
    const row = $(`row-${what}`);
    const wired = state.wired[what];
    row.querySelector("button").disabled = !wired;
    row.querySelector("button").textContent = word(`try.${what}`) + (wired ? "" : ` (${word("try.unwired")})`);
    const [mood, key] = answers[what] ?? ["", ""];
    const answer = row.querySelector(".answer");
    answer.className = `answer ${mood}`;
    const text = key ? word(key) : "";
    if (answer.textContent !== text) answer.textContent = text;
  }
}

async function attempt(what) {
  if (what === "bell") {
    bell = { times: state.wires.bell.times, until: performance.now() + BELL_MS };
    answers.bell = ["", "try.bell.waiting"];
    return trials();
  }
  try {
    const answer = await ask("/setup/try", { what });
    const said = await answer.json();
    answers[what] = answer.ok ? ["", "try.done"] : ["bad", said.error];
  } catch {
    answers[what] = ["bad", "lost"];
  }
  trials();
}

function render() {
  const inside = Boolean(token) && !over;
  $("door").hidden = inside || over;
  $("room").hidden = !inside;
  $("over").hidden = !over;
  $("over").textContent = word("over");
  if (lost && inside) say(word("lost"), "bad");
  if (!state) return;
  $("post").textContent = [state.node, state.place].filter(Boolean).join(", ");
  $("left").textContent = over ? "" : word("left", { value: Math.ceil(state.left_s / 60) });
  if (!inside) return;
  checks();
  trials();
  look();
}

async function follow() {
  for (;;) {
    if (token && !over) {
      try {
        const answer = await ask("/setup/state");
        if (answer.ok) {
          state = await answer.json();
          if (lost) say("");
          lost = false;
          document.body.dataset.ready = "yes";
        }
      } catch (error) {
        if (error.status !== 401) lost = true;
        if (lost && state && state.left_s <= 0) over = true;
      }
      if (lost && state) state.left_s = Math.max(state.left_s - STATE_MS / 1000, 0);
      render();
    }
    await sleep(STATE_MS);
  }
}

async function enter(event) {
  event.preventDefault();
  $("enter").disabled = true;
  try {
    const answer = await fetch("/setup/enter", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ code: $("code").value, name: $("name").value }),
    });
    const said = await answer.json().catch(() => ({}));
    if (answer.ok) {
      token = stored.token = said.token;
      $("code").value = "";
      say("");
      render();
    } else if (answer.status === 429) {
      say(word("door.locked", { value: answer.headers.get("Retry-After") ?? "" }), "bad");
    } else say(answer.status === 403 ? word("door.wrong") : said.error || String(answer.status), "bad");
  } catch {
    say(word("lost"), "bad");
  }
  $("enter").disabled = false;
}

async function done() {
  const button = $("done");
  if (!button.dataset.asked) { // a wet finger slips: once more, within five seconds
    button.dataset.asked = "yes";
    button.textContent = word("done.ask");
    setTimeout(() => {
      delete button.dataset.asked;
      button.textContent = word("done.button");
    }, 5000);
    return;
  }
  await ask("/setup/done", {}).catch(() => undefined);
  over = true;
  leave();
}

async function start() {
  const given = decodeURIComponent(location.hash.slice(1)); // of the label's second code
  if (given) $("code").value = given.slice(0, 20);
  history.replaceState(null, "", location.pathname);
  $("trials").replaceChildren(...TRIALS.map((what) => {
    const row = made("li", "", "");
    row.id = `row-${what}`;
    const button = made("button", "", what);
    button.type = "button";
    button.id = `try-${what}`;
    button.addEventListener("click", () => attempt(what));
    row.append(button, made("p", "answer", ""));
    row.lastChild.setAttribute("role", "status");
    return row;
  }));
  $("language").addEventListener("click", () => speak(language === "vi" ? "en" : "vi"));
  $("door").addEventListener("submit", enter);
  $("done").addEventListener("click", done);
  $("grid").addEventListener("click", () => {
    grid = !grid;
    $("grid").setAttribute("aria-pressed", String(grid));
    draw();
  });
  window.addEventListener("resize", draw);
  await speak(language);
  if (!token) document.body.dataset.ready = "door";
  follow();
  watch();
}

start();
