// The map of posts: Leaflet, markers grouped by what lies near on the screen, renewed every few seconds. The list below
// tells the same of what is in view. Without this script the page has a plan and the whole list.
"use strict";

const NEAR_PX = 46; // closer than this on the screen, posts share a marker
const LOOKS = ["bad", "warn", "good"]; // the worst first, as the station sends the posts
const MARKS = { good: "✓", warn: "!", bad: "✕" };
const STATES = { good: "good", warn: "open", bad: "bad" };
const ZOOM_LEAST = 3, ZOOM_MOST = 19, ZOOM_FIRST_MOST = 17;
const POPUP_MAX = 50;
const EDGE_SHARE = 0.25; // so much around what is in view is drawn as well
const $ = (id) => document.getElementById(id);

const box = $("map");
const say = (key, values) => Object.entries(values).reduce((text, [name, value]) => text.replaceAll(`{${name}}`, value), box.dataset[key]);

let posts = [];
let version = "";
let leftOut = 0;
let drawn = new Map(); // by what a marker stands for

function make(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const marked = (alarmed) => (alarmed ? " alarmed" : ""); // an evidence alarm is open there

function sign(post) {
  return make("span", { class: `pin ${post.look}${marked(post.alarmed)}`, "aria-hidden": "true" }, make("span", {}, MARKS[post.look]));
}

// -- the ground ------------------------------------------------------------------------------------------------------

function begin() {
  box.replaceChildren();
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const map = L.map(box, { minZoom: ZOOM_LEAST, maxZoom: ZOOM_MOST, zoomControl: false, zoomAnimation: !still, fadeAnimation: !still, markerZoomAnimation: false });
  L.control.zoom({ zoomInTitle: box.dataset.closer, zoomOutTitle: box.dataset.farther }).addTo(map);
  L.control.scale({ imperial: false, maxWidth: 160, position: "topright" }).addTo(map);
  map.attributionControl.setPrefix("Leaflet");
  const Grid = L.GridLayer.extend({
    createTile(at) {
      const corner = map.unproject(at.scaleBy(this.getTileSize()), at.z);
      const digits = Math.max(0, Math.ceil((at.z - 3) / 3));
      return make("div", { class: "cell", "aria-hidden": "true" }, `${corner.lat.toFixed(digits)}, ${corner.lng.toFixed(digits)}`);
    },
  });
  new Grid({ zIndex: 0, noWrap: true }).addTo(map);
  if (box.dataset.tiles) {
    L.tileLayer(`${box.dataset.tiles}/{z}/{x}/{y}.png`, {
      minNativeZoom: Number(box.dataset.least), maxNativeZoom: Number(box.dataset.most),
      minZoom: ZOOM_LEAST, maxZoom: ZOOM_MOST, noWrap: true,
      attribution: make("i", {}, box.dataset.attribution).innerHTML, // as text: Leaflet takes it for HTML
    }).addTo(map);
  }
  map.on("moveend", () => {
    draw(map);
    const at = map.getCenter();
    history.replaceState(null, "", `#${map.getZoom()}/${at.lat.toFixed(5)}/${at.lng.toFixed(5)}`); // for the way back
  });
  return map;
}

function remembered() {
  const [zoom, lat, lon] = location.hash.slice(1).split("/").map(Number);
  return Number.isFinite(zoom) && Math.abs(lat) <= 90 && Math.abs(lon) <= 180 ? [[lat, lon], zoom] : null;
}

// -- the posts -------------------------------------------------------------------------------------------------------

// Whoever lies near a post that has a marker already shares it. Looked up by squares, so that a thousand cost no million.
function grouped(map) {
  const zoom = map.getZoom(), near = map.getBounds().pad(EDGE_SHARE);
  const squares = new Map(), groups = [];
  for (const post of posts) {
    if (!near.contains(post.at)) continue;
    const at = map.project(post.at, zoom);
    const x = Math.floor(at.x / NEAR_PX), y = Math.floor(at.y / NEAR_PX);
    let mine = null;
    for (let dx = -1; dx <= 1; dx++) for (let dy = -1; dy <= 1; dy++) {
      for (const group of squares.get(`${x + dx}:${y + dy}`) || []) {
        if (!mine && Math.max(Math.abs(group.x - at.x), Math.abs(group.y - at.y)) < NEAR_PX) mine = group;
      }
    }
    if (mine) { mine.posts.push(post); continue; }
    const made = { x: at.x, y: at.y, posts: [post] };
    const here = `${x}:${y}`;
    squares.set(here, [...(squares.get(here) || []), made]);
    groups.push(made);
  }
  return groups;
}

function pin(map, group) {
  const [post] = group.posts;
  if (group.posts.length === 1) {
    const made = make("a", { class: `pin ${post.look}${marked(post.alarmed)}`, href: `/posts/${post.node}`, draggable: "false", title: `${post.place}: ${post.says}`, "aria-label": `${post.place}: ${post.says}` }, make("span", { "aria-hidden": "true" }, MARKS[post.look]));
    made.addEventListener("click", (event) => { if (map.dragging && map.dragging.moved()) event.preventDefault(); });
    return made;
  }
  const count = (look) => group.posts.filter((one) => one.look === look).length;
  const alarmed = group.posts.filter((one) => one.alarmed).length;
  const label = say("group", { count: group.posts.length, bad: count("bad"), warn: count("warn"), alarmed });
  const look = LOOKS.find(count);
  const made = make("button", { class: `pin group ${look}${marked(alarmed)}`, type: "button", title: label, "aria-label": label }, make("span", { "aria-hidden": "true" }, String(group.posts.length)));
  made.addEventListener("click", (event) => {
    event.stopPropagation(); // a click on the map closes what this one opens
    if (!(map.dragging && map.dragging.moved())) open(map, group.posts);
  });
  return made;
}

// Closer, as long as that parts them; posts of one house stay together, and are told one by one.
function open(map, ones) {
  const bounds = L.latLngBounds(ones.map((post) => post.at));
  const zoom = Math.min(map.getBoundsZoom(bounds.pad(0.2)), ZOOM_MOST);
  const apart = map.project(bounds.getNorthEast(), ZOOM_MOST).subtract(map.project(bounds.getSouthWest(), ZOOM_MOST));
  if (zoom > map.getZoom() && Math.max(Math.abs(apart.x), Math.abs(apart.y)) >= NEAR_PX) { map.setView(bounds.getCenter(), zoom); box.focus({ preventScroll: true }); return; }
  const list = make("ul", {}, ...ones.slice(0, POPUP_MAX).map((post) => make("li", {}, sign(post), make("a", { href: `/posts/${post.node}` }, post.place), ` ${post.says}`)));
  const popup = L.popup({ maxWidth: 320, autoPanPadding: [50, 50] }).setLatLng(ones[0].at).setContent(list).openOn(map);
  popup.getElement().querySelector(".leaflet-popup-close-button").setAttribute("aria-label", box.dataset.close);
  list.querySelector("a").focus({ preventScroll: true });
}

function draw(map) {
  const left = drawn;
  drawn = new Map();
  for (const group of grouped(map)) {
    const [first] = group.posts;
    const key = `${map.getZoom()} ${group.posts.length === 1 ? "" : "+"}${first.node}`;
    const told = JSON.stringify(group.posts);
    const old = left.get(key);
    left.delete(key);
    if (old && old.told === told) { drawn.set(key, old); continue; } // a finger on it, or the focus, stays
    const made = pin(map, group), focused = old && old.made === document.activeElement;
    if (old) old.marker.remove();
    const icon = L.divIcon({ html: made, iconSize: [44, 44] });
    const marker = L.marker(first.at, { icon, keyboard: false, interactive: false, zIndexOffset: 1000 * (LOOKS.length - LOOKS.indexOf(first.look)) }).addTo(map);
    if (focused) made.focus({ preventScroll: true });
    drawn.set(key, { marker, made, told });
  }
  for (const old of left.values()) old.marker.remove();
  list(map);
}

function list(map) {
  const view = map.getBounds(), most = Number(box.dataset.listed);
  const shown = posts.filter((post) => view.contains(post.at));
  const told = shown.slice(0, most).map((post) => `${post.node}\n${post.look}\n${post.place}\n${post.says}`).join("\n\n");
  if ($("list").dataset.told !== told) {
    $("list").dataset.told = told;
    $("list").replaceChildren(...shown.slice(0, most).map((post) => make("li", {}, sign(post), make("a", { href: `/posts/${post.node}` }, post.place), make("span", { class: `state ${STATES[post.look]}` }, post.says))));
  }
  const text = say("shown", { count: shown.length });
  if ($("count").textContent !== text) $("count").textContent = text;
  $("more").textContent = [
    shown.length > most ? say("more", { count: shown.length - most }) : "",
    leftOut ? say("leftout", { count: leftOut }) : "",
  ].join(" ").trim();
}

// -- what is new -----------------------------------------------------------------------------------------------------

async function look(map) {
  try {
    const answer = await fetch(`${box.dataset.posts}?known=${version}`);
    if (answer.status === 401) { location.assign("/login"); return; }
    if (answer.status === 403 || answer.status === 404) { over(); return; }
    if (!answer.ok) throw new Error(answer.status);
    if (answer.status === 200) take(map, await answer.json());
    $("lost").hidden = true;
  } catch {
    $("lost").hidden = false;
  }
  setTimeout(() => soon(map), Number(box.dataset.refresh) * 1000);
}

// It is not for these eyes any more: what they were shown stays, as what it was, and is not renewed.
function over() {
  $("lost").textContent = box.dataset.over;
  $("lost").hidden = false;
}

// Not while nobody looks.
function soon(map) {
  if (document.hidden) document.addEventListener("visibilitychange", () => soon(map), { once: true });
  else look(map);
}

function take(map, news) {
  const first = version === "";
  ({ version, leftout: leftOut } = news);
  posts = news.posts.map(([node, place, lat, lon, look, says, alarmed]) => ({ node, place, at: [lat, lon], look, says, alarmed }));
  const back = first && remembered();
  if (back) map.setView(...back);
  else if (first && posts.length) map.fitBounds(L.latLngBounds(posts.map((post) => post.at)).pad(0.1), { maxZoom: ZOOM_FIRST_MOST });
  else if (first) map.setView([0, 0], ZOOM_LEAST);
  draw(map);
  box.dataset.version = version;
}

if (window.L) look(begin());
