// Footage: plays originals by hls.js, shows where in time the picture is, steps by frames, keeps a picture.
"use strict";

const FRAME_S = 0.04;       // until two pictures have told how far apart they are
const FRAME_S_MAX = 1.5;
const ANSWER_MS_MAX = 20000; // a survey of many posts may take long; what takes longer does not answer
const OVER = [403, 404];    // the post, or footage at all, is not for these eyes any more
const STEPS_MAX = 5;        // a picture that was not drawn in time leaves a long step between its neighbours

const player = document.getElementById("player");
const video = document.getElementById("video");
const shown = document.getElementById("player-time");
const said = document.getElementById("player-said");
const play = document.getElementById("play");

let hls = null;             // of what is played
let playing = null;         // its post's element
let post = "";
let loaded = "";            // its parts as the page had them
let parts = [];             // [UTC ms, seconds, media time]
let mediaTime = 0;          // of the picture that is shown
let frameS = FRAME_S;
let steps = [];             // between pictures that were shown one after the other

const digits = new Intl.DateTimeFormat("en-GB", {
  timeZone: player.dataset.zone, hourCycle: "h23", fractionalSecondDigits: 3,
  day: "2-digit", month: "2-digit", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit",
});

function clock(ms) {
  const part = Object.fromEntries(digits.formatToParts(ms).map((one) => [one.type, one.value]));
  return `${part.day}.${part.month}.${part.year} ${part.hour}:${part.minute}:${part.second}.${part.fractionalSecond}`;
}

function utcAt(media) {
  let found = parts[0];
  for (const part of parts) {
    if (media >= part[2] - 0.001) found = part;
  }
  return found[0] + Math.max(media - found[2], 0) * 1000;
}

function mediaAt(there, utc) {
  for (const part of there) {
    if (utc < part[0]) return part[2];  // in a gap: what comes next
    if (utc < part[0] + part[1] * 1000) return part[2] + (utc - part[0]) / 1000;
  }
  const last = there[there.length - 1];
  return last[2] + last[1] - 0.001;
}

function seen(media) {
  const step = Math.abs(media - mediaTime);
  if (!video.paused && step > 0.001 && step < FRAME_S_MAX) {
    steps = [...steps, step].slice(-STEPS_MAX);
    frameS = Math.min(...steps);
  }
  mediaTime = media;
  const utc = utcAt(media);
  shown.dateTime = new Date(utc).toISOString();
  shown.textContent = clock(utc);
  player.dataset.utc = String(Math.round(utc));
  if (!playing || !playing.isConnected) playing = document.querySelector(`[data-post="${post}"]`);
  const { start, end } = playing.dataset;
  const x = (utc - start) / (end - start) * 1000;
  playing.querySelector(".now").setAttribute("d", `M${x.toFixed(1)},0 V30`);
}

function watch() {
  video.requestVideoFrameCallback((now, told) => { seen(told.mediaTime); watch(); });
}

function wrong(text) {
  said.hidden = !text;
  said.textContent = text;
}

function begin(element, at) {
  const opened = post === element.dataset.post && loaded === element.dataset.parts;
  playing = element;
  player.hidden = false;
  if (opened) return go(at);
  if (hls !== null) hls.destroy();
  post = element.dataset.post;
  loaded = element.dataset.parts;
  parts = JSON.parse(loaded);
  frameS = FRAME_S;
  steps = [];
  wrong("");
  document.getElementById("player-title").textContent = element.querySelector("h2").textContent;
  hls = new Hls({ enableWorker: false, maxBufferLength: 20, maxMaxBufferLength: 60, startPosition: at });
  hls.on(Hls.Events.ERROR, (event, told) => {
    if (told.fatal) wrong(`${player.dataset.failed} (${told.details})`);
  });
  hls.on(Hls.Events.MANIFEST_PARSED, () => video.play());
  hls.loadSource(element.dataset.list);
  hls.attachMedia(video);
}

function go(media) {
  video.currentTime = media;
}

function step(direction) {
  video.pause();
  go(Math.max(mediaTime + (direction > 0 ? 1.5 : -0.5) * frameS, 0));
}

function keep() {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  const time = new Date(utcAt(mediaTime)).toISOString().replace(/[:.]/g, "-");
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${post}_${time}.png`;
    link.click();
    player.dataset.kept = link.download;
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }, "image/png");
}

document.addEventListener("click", (event) => {
  const element = event.target.closest("[data-post]");
  if (!element || typeof Hls === "undefined") return;
  const there = JSON.parse(element.dataset.parts);
  if (!there.length) return;
  const start = Number(element.dataset.start);
  const bar = event.target.closest(".seek");
  if (event.target.closest(".start")) begin(element, mediaAt(there, start));
  else if (bar) {
    const box = bar.querySelector("svg").getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    begin(element, mediaAt(there, start + share * (element.dataset.end - start)));
  }
});

play.addEventListener("click", () => (video.paused ? video.play() : video.pause()));
for (const kind of ["play", "pause"]) {
  video.addEventListener(kind, () => { play.textContent = play.dataset[video.paused ? "play" : "pause"]; });
}
video.addEventListener("error", () => wrong(player.dataset.failed));
document.getElementById("back").addEventListener("click", () => step(-1));
document.getElementById("forward").addEventListener("click", () => step(1));
document.getElementById("snapshot").addEventListener("click", keep);
watch();

function follow(section, text) {
  const line = section.previousElementSibling;
  if (line.textContent !== text) line.textContent = text; // else a screen reader would say it again
  line.hidden = !text;
}

// It is not for these eyes any more: neither is what they were shown.
function over(section) {
  if (post === section.querySelector("[data-post]").dataset.post) {
    if (hls !== null) hls.destroy();
    hls = null;
    post = "";
    player.hidden = true;
  }
  section.replaceChildren();
  follow(section, player.dataset.over);
}

// What was asked for is on its way: the post's part of the page comes again until it is there.
async function refresh(section) {
  const element = section.querySelector("[data-busy]");
  if (element === null) return; // it is over
  if (element.dataset.busy === "yes" && !section.contains(document.activeElement)) {
    const asked = { headers: { "X-Wardpost-Part": "footage" }, signal: AbortSignal.timeout(ANSWER_MS_MAX) };
    const answer = await fetch(section.dataset.part, asked).catch(() => null);
    if (answer !== null && answer.status === 401) { location.assign("/login"); return; }
    if (answer !== null && OVER.includes(answer.status)) { over(section); return; }
    const html = answer !== null && answer.ok ? await answer.text().catch(() => null) : null;
    follow(section, html === null ? player.dataset.silent : ""); // what stands there stays, and may be old
    if (html !== null) {
      const typed = section.querySelector("[name=reason]")?.value;
      const open = [...section.querySelectorAll("details")].map((one) => one.open);
      section.innerHTML = html; // from our own templates, which escape whatever nodes and people say
      section.querySelectorAll("details").forEach((one, n) => { one.open = open[n] || false; });
      const reason = section.querySelector("[name=reason]");
      if (reason !== null && typed) { reason.value = typed; }
      if (playing !== null && post === section.querySelector("[data-post]").dataset.post) {
        playing = section.querySelector("[data-post]");
      }
    }
  }
  setTimeout(() => refresh(section), section.dataset.refresh * 1000);
}
document.querySelectorAll("section[data-part]").forEach((section) => {
  setTimeout(() => refresh(section), section.dataset.refresh * 1000);
});
