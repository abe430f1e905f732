// Draws zones, lines and masks on the camera's picture. Coordinates are 0..1 of the picture, as in the file.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const REACH_PX = 22; // a finger is so wide
const $ = (id) => document.getElementById(id);
const token = (() => {
  const given = location.hash.slice(1);
  if (given) sessionStorage.setItem("token", given);
  history.replaceState(null, "", location.pathname); // not for the history, not for screenshots
  return given || sessionStorage.getItem("token") || "";
})();

let kinds = [];
let shapes = []; // {kind, name, points, was}
let saved = "";
let digest = "";
let complaints = [];
let chosen = -1;
let picked = -1; // point of the chosen shape
let draft = null; // {kind, points, at}
let drag = null;
let checking = 0;

const kindOf = (shape) => kinds.find((kind) => kind.id === shape.kind);
const changed = () => JSON.stringify(shapes) !== saved;
const clamp = (value) => Math.min(Math.max(value, 0), 1);
const round = (value) => Math.round(clamp(value) * 10000) / 10000;

async function ask(path, body) {
  const options = { headers: { "X-Wardpost-Token": token } };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw Object.assign(new Error("wardpost zones does not answer any more: has it ended?"), { found: [] });
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw Object.assign(new Error(said.error || `error ${answer.status}`), { found: said.complaints || [] });
}

function say(text, mood = "") {
  $("said").textContent = text;
  $("said").className = mood;
}

function take(state) {
  kinds = state.kinds;
  shapes = state.shapes;
  digest = state.digest;
  saved = JSON.stringify(shapes);
  complaints = [];
  chosen = Math.min(chosen, shapes.length - 1);
  picked = -1;
  $("file").textContent = state.file;
  $("new-picture").hidden = !state.live;
}

async function picture(path) {
  const blob = await (await ask(path)).blob();
  const old = $("picture").src;
  await new Promise((done, failed) => {
    $("picture").onload = done;
    $("picture").onerror = () => failed(new Error("the picture cannot be shown"));
    $("picture").src = URL.createObjectURL(blob);
  });
  if (old) URL.revokeObjectURL(old);
  const { naturalWidth, naturalHeight } = $("picture");
  $("frame").style.setProperty("--aspect", naturalWidth / naturalHeight);
}

// -- drawing ---------------------------------------------------------------------------------------------------------

function element(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

function draw() {
  const svg = $("drawing");
  const { width, height } = svg.getBoundingClientRect();
  if (!width || !height) return;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.classList.toggle("busy", Boolean(draft) || chosen >= 0);
  svg.replaceChildren();
  const px = ([x, y]) => [x * width, y * height];
  const text = (points) => points.map((point) => px(point).map((v) => v.toFixed(1)).join(",")).join(" ");

  shapes.forEach((shape, index) => {
    const kind = kindOf(shape);
    const group = element("g", { class: `${shape.kind}${kind.closed ? "" : " open"}${index === chosen ? " chosen" : ""}` }, svg);
    const outline = kind.closed ? "polygon" : "polyline";
    element(outline, { class: "body", points: text(shape.points), "data-shape": index }, group);
    if (!kind.closed) element(outline, { class: "reach", points: text(shape.points), "data-shape": index }, group);
    if (!kind.closed) sides(shape, group, px, index === chosen || width > 600);
    const top = shape.points.reduce((best, point) => (point[1] < best[1] ? point : best));
    const [x, y] = px(top);
    const label = element("text", { class: "label", y: Math.max(y + 18, 16) }, group);
    label.textContent = shape.name || kind.title;
    label.setAttribute("x", Math.max(Math.min(x + 6, width - label.getComputedTextLength() - 4), 4));
  });

  if (chosen >= 0 && !draft) handles(shapes[chosen], svg, px);
  if (draft) {
    const group = element("g", { class: draft.kind.id }, svg);
    const trail = draft.at ? [...draft.points, draft.at] : draft.points;
    element(draft.kind.closed ? "polygon" : "polyline", { class: "draft", points: text(trail) }, group);
    for (const point of draft.points) {
      const [x, y] = px(point);
      element("circle", { class: "point", cx: x, cy: y, r: 6 }, group);
    }
  }
  tools();
}

// A line's two sides, as rules name them: of somebody who looks from its first point to its second.
function sides(shape, group, px, named) {
  const [[x1, y1], [x2, y2]] = shape.points.map(px);
  const length = Math.hypot(x2 - x1, y2 - y1) || 1;
  const [dx, dy] = [(x2 - x1) / length, (y2 - y1) / length];
  const head = [[x2, y2], [x2 - 14 * dx - 6 * dy, y2 - 14 * dy + 6 * dx], [x2 - 14 * dx + 6 * dy, y2 - 14 * dy - 6 * dx]];
  element("polygon", { class: "head", points: head.map((point) => point.join(",")).join(" ") }, group);
  if (!named) return; // on a phone there is no room for every line's sides
  for (const [name, way] of [["left", 1], ["right", -1]]) {
    const at = { x: (x1 + x2) / 2 + way * 24 * dy, y: (y1 + y2) / 2 - way * 24 * dx + 5 };
    element("text", { class: "label side", ...at }, group).textContent = name;
  }
}

function handles(shape, svg, px) {
  const kind = kindOf(shape);
  const group = element("g", { class: shape.kind }, svg);
  if (shape.points.length < kind.max) {
    shape.points.forEach((point, index) => {
      const next = shape.points[(index + 1) % shape.points.length];
      const [x, y] = px([(point[0] + next[0]) / 2, (point[1] + next[1]) / 2]);
      element("circle", { class: "middle", cx: x, cy: y, r: 4 }, group);
      element("circle", { class: "touch", cx: x, cy: y, r: REACH_PX * 0.6, "data-middle": index }, group);
    });
  }
  shape.points.forEach((point, index) => {
    const [x, y] = px(point);
    element("circle", { class: `point${index === picked ? " picked" : ""}`, cx: x, cy: y, r: 7 }, group);
    element("circle", { class: "touch", cx: x, cy: y, r: REACH_PX, "data-point": index }, group);
  });
}

function tools() {
  $("add").hidden = Boolean(draft);
  $("while").hidden = !draft;
  $("chosen").hidden = Boolean(draft) || chosen < 0;
  if (draft) {
    $("finish").disabled = draft.points.length < draft.kind.min;
    $("undo").disabled = !draft.points.length;
    $("hint").textContent = draft.kind.closed
      ? `${draft.kind.title}: tap the corners in order, then the first one again or Finish.`
      : `${draft.kind.title}: tap where it begins and where it ends.`;
  } else if (chosen >= 0) {
    const shape = shapes[chosen];
    $("delete-point").disabled = picked < 0 || shape.points.length <= kindOf(shape).min;
    $("hint").textContent = "Drag a point, or the small dot between two points for a new one. Drag the inside to move it.";
  } else {
    $("hint").textContent = kinds.map((kind) => `${kind.title}: ${kind.does}.`).join(" ");
  }
  const blocked = complaints.some((one) => one.blocks);
  $("save").disabled = !changed() || blocked || Boolean(draft);
  $("save").textContent = changed() ? "Save" : "Saved";
}

function list() {
  const rows = shapes.map((shape, index) => {
    const kind = kindOf(shape);
    const row = document.createElement("li");
    row.className = `${shape.kind}${index === chosen ? " chosen" : ""}`;
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    const title = document.createElement("span");
    title.className = "title";
    title.textContent = `${kind.title}, ${shape.points.length} points`;
    row.append(swatch, title);
    if (kind.named) {
      const name = document.createElement("input");
      name.value = shape.name;
      name.placeholder = "name: a-z, 0-9, -";
      name.maxLength = 32;
      name.autocapitalize = "none";
      name.autocomplete = "off";
      name.spellcheck = false;
      name.setAttribute("aria-label", `Name of the ${kind.title.toLowerCase()}`);
      name.addEventListener("input", () => {
        shape.name = name.value.trim().toLowerCase().replace(/[\s_]+/g, "-");
        edited(false);
      });
      name.addEventListener("focus", () => choose(index, false));
      row.append(name);
    }
    const button = document.createElement("button");
    button.type = "button";
    button.className = "choose";
    button.textContent = index === chosen ? "Done" : "Edit";
    button.addEventListener("click", () => choose(index === chosen ? -1 : index));
    row.append(button);
    for (const one of complaints.filter((each) => each.shape === index)) row.append(complaint(one, "p"));
    return row;
  });
  $("shapes").replaceChildren(...rows);
  whole();
}

function whole() {
  $("complaints").replaceChildren(...complaints.filter((one) => one.shape === null).map((one) => complaint(one, "li")));
}

function complaint(one, tag) {
  const made = document.createElement(tag);
  made.className = one.blocks ? "complaint" : "complaint mild";
  made.textContent = one.text;
  return made;
}

function choose(index, renew = true) {
  if (index === chosen && !renew) return;
  chosen = index;
  picked = -1;
  draw();
  if (renew) list();
  else [...$("shapes").children].forEach((row, at) => {
    row.classList.toggle("chosen", at === index);
    row.querySelector(".choose").textContent = at === index ? "Done" : "Edit";
  });
}

// A change: redraw, and ask the node's own rules what they think of it once the hand rests.
function edited(renew = true) {
  draw();
  if (renew) list();
  say("");
  clearTimeout(checking);
  checking = setTimeout(async () => {
    const asked = JSON.stringify(shapes);
    try {
      const found = (await (await ask("/api/check", { digest, shapes })).json()).complaints;
      if (asked === JSON.stringify(shapes)) complaints = found;
    } catch (error) {
      say(error.message, "bad");
    }
    refresh();
  }, 250);
}

// Shows complaints without taking the input from under somebody's fingers.
function refresh() {
  if (document.activeElement && document.activeElement.matches("#shapes input")) {
    [...$("shapes").children].forEach((row, index) => {
      row.querySelectorAll(".complaint").forEach((old) => old.remove());
      for (const one of complaints.filter((each) => each.shape === index)) row.append(complaint(one, "p"));
    });
    whole();
    draw();
  } else {
    list();
    draw();
  }
}

// -- mouse, finger, pen ----------------------------------------------------------------------------------------------

function where(event) {
  const box = $("drawing").getBoundingClientRect();
  return [round((event.clientX - box.left) / box.width), round((event.clientY - box.top) / box.height)];
}

function near(one, other) {
  const box = $("drawing").getBoundingClientRect();
  return Math.hypot((one[0] - other[0]) * box.width, (one[1] - other[1]) * box.height) < REACH_PX;
}

function down(event) {
  if (event.button) return;
  const at = where(event);
  if (draft) {
    event.preventDefault();
    if (draft.points.length >= draft.kind.min && draft.kind.closed && near(at, draft.points[0])) return finish();
    draft.points.push(at);
    draft.at = null;
    if (draft.points.length >= draft.kind.max) return finish();
    return draw();
  }
  const data = event.target.dataset;
  if (data.middle !== undefined) {
    const index = Number(data.middle) + 1;
    shapes[chosen].points.splice(index, 0, at);
    picked = index;
    drag = { point: index };
  } else if (data.point !== undefined) {
    picked = Number(data.point);
    drag = { point: picked };
  } else if (data.shape !== undefined && Number(data.shape) === chosen) {
    drag = { from: at, points: shapes[chosen].points.map((point) => [...point]) };
    picked = -1;
  } else {
    return choose(data.shape === undefined ? -1 : Number(data.shape));
  }
  event.preventDefault();
  $("drawing").setPointerCapture(event.pointerId);
  $("drawing").focus({ preventScroll: true });
  draw();
}

function move(event) {
  const at = where(event);
  if (draft) {
    if (event.pointerType === "mouse" && draft.points.length) {
      draft.at = at;
      draw();
    }
    return;
  }
  if (!drag) return;
  const points = shapes[chosen].points;
  if (drag.point !== undefined) {
    points[drag.point] = at;
  } else {
    const xs = drag.points.map((point) => point[0]);
    const ys = drag.points.map((point) => point[1]);
    const dx = Math.min(Math.max(at[0] - drag.from[0], -Math.min(...xs)), 1 - Math.max(...xs));
    const dy = Math.min(Math.max(at[1] - drag.from[1], -Math.min(...ys)), 1 - Math.max(...ys));
    shapes[chosen].points = drag.points.map(([x, y]) => [round(x + dx), round(y + dy)]);
  }
  draw();
}

function up() {
  if (!drag) return;
  drag = null;
  edited();
}

function finish() {
  if (!draft || draft.points.length < draft.kind.min) return;
  const { kind, points } = draft;
  draft = null;
  let name = "";
  if (kind.named) {
    let number = 1;
    while (shapes.some((shape) => shape.name === `${kind.id}-${number}`)) number += 1;
    name = `${kind.id}-${number}`;
  }
  shapes.push({ kind: kind.id, name, points, was: null });
  chosen = shapes.length - 1;
  picked = -1;
  edited();
}

function remove() {
  if (chosen < 0) return;
  shapes.splice(chosen, 1);
  chosen = picked = -1;
  edited();
}

function removePoint() {
  if (chosen < 0 || picked < 0 || shapes[chosen].points.length <= kindOf(shapes[chosen]).min) return;
  shapes[chosen].points.splice(picked, 1);
  picked = -1;
  edited();
}

function undo() {
  draft.points.pop();
  draft.at = null;
  draw();
}

function cancel() {
  draft = null;
  draw();
}

function key(event) {
  if (event.target.matches("input")) return;
  const nudge = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (draft) {
    if (event.key === "Escape") cancel();
    else if (event.key === "Enter" && event.target === $("drawing")) finish();
    else if (event.key === "Backspace" && draft.points.length) undo();
    else return;
  } else if (event.key === "Escape") choose(-1);
  else if (event.key === "Delete" || event.key === "Backspace") picked >= 0 ? removePoint() : remove();
  else if (nudge && chosen >= 0 && picked >= 0) {
    const step = event.shiftKey ? 0.01 : 0.001;
    const point = shapes[chosen].points[picked];
    shapes[chosen].points[picked] = [round(point[0] + nudge[0] * step), round(point[1] + nudge[1] * step)];
    edited();
  } else return;
  event.preventDefault();
}

async function save() {
  $("save").disabled = true;
  clearTimeout(checking);
  try {
    const state = await (await ask("/api/save", { digest, shapes })).json();
    take(state);
    say(state.said, "good");
  } catch (error) {
    complaints = error.found;
    say(error.message, "bad");
  }
  list();
  draw();
}

async function start() {
  $("back").hidden = location.pathname === "/"; // else it is served beside the page of an installation
  const drawing = $("drawing");
  drawing.addEventListener("pointerdown", down);
  drawing.addEventListener("pointermove", move);
  drawing.addEventListener("pointerup", up);
  drawing.addEventListener("pointercancel", up);
  document.addEventListener("keydown", key);
  window.addEventListener("resize", draw);
  new ResizeObserver(draw).observe(drawing);
  window.addEventListener("beforeunload", (event) => { if (changed()) event.preventDefault(); });
  $("finish").addEventListener("click", finish);
  $("undo").addEventListener("click", undo);
  $("cancel").addEventListener("click", cancel);
  $("delete").addEventListener("click", remove);
  $("delete-point").addEventListener("click", removePoint);
  $("save").addEventListener("click", save);
  $("new-picture").addEventListener("click", async () => {
    $("new-picture").disabled = true;
    await picture("/api/picture/new").catch((error) => say(error.message, "bad"));
    $("new-picture").disabled = false;
  });
  try {
    take(await (await ask("/api/state")).json());
    for (const kind of kinds) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = `+ ${kind.title}`;
      button.id = `add-${kind.id}`;
      button.title = kind.does;
      button.addEventListener("click", () => {
        draft = { kind, points: [], at: null };
        choose(-1);
        $("drawing").focus({ preventScroll: true });
      });
      $("add").append(button);
    }
    await picture("/api/picture");
  } catch (error) {
    say(error.message, "bad");
  }
  list();
  draw();
  document.body.dataset.ready = "yes";
}

start();
