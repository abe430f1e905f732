// Live view: WebRTC to the post itself, signalled by the station; stills where no connection comes about.
"use strict";

const LOOK_MS = 1000;
const GATHER_MS_MAX = 3000;
const $ = (id) => document.getElementById(id);

const page = $("live");
const base = `/live/${page.dataset.post}`;
const video = $("video"), picture = $("still");
let view = "", peer = null, mode = "", answered = false, shown = 0, until = 0, timer = 0;

function say(text) {
  $("said").textContent = text;
  $("said").hidden = !text;
}

function state(text) {
  if ($("state").textContent !== text) $("state").textContent = text;
}

async function send(path, fields) {
  const body = new URLSearchParams({ form: page.dataset.form, ...fields });
  return read(await fetch(base + path, { method: "POST", body, headers: { "X-Wardpost-Part": "live" } }));
}

async function read(answer) {
  if (answer.status === 401) { location.assign("/login"); throw new Error("401"); }
  if (!(answer.headers.get("content-type") || "").startsWith("application/json")) throw new Error(answer.status);
  return answer.json();
}

function gathered(one) {
  if (one.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((done) => {
    setTimeout(done, GATHER_MS_MAX);
    one.addEventListener("icegatheringstatechange", () => { if (one.iceGatheringState === "complete") done(); });
  });
}

async function offer(ice) {
  peer = new RTCPeerConnection({ iceServers: ice.map((one) => ({ urls: one.url, username: one.username, credential: one.credential })) });
  window.wardpostPeer = peer; // for whoever looks at its statistics
  const line = peer.addTransceiver("video", { direction: "recvonly" });
  const codecs = RTCRtpReceiver.getCapabilities("video").codecs.filter((one) => /\/(h264|rtx)$/i.test(one.mimeType));
  if (codecs.some((one) => /h264/i.test(one.mimeType))) line.setCodecPreferences(codecs);
  peer.addEventListener("track", (event) => {
    video.srcObject = event.streams[0] || new MediaStream([event.track]);
    video.hidden = false;
  });
  peer.addEventListener("connectionstatechange", () => {
    if (peer && peer.connectionState === "connected") state(page.dataset.playing);
  });
  await peer.setLocalDescription(await peer.createOffer());
  await gathered(peer);
  return peer.localDescription.sdp;
}

async function begin(wanted) {
  mode = wanted;
  answered = false;
  shown = 0;
  $("start").hidden = true;
  state(page.dataset.asking);
  try {
    const opened = await send("/open", {});
    view = opened.view;
    const sdp = mode === "video" ? await offer(opened.ice) : "";
    const told = await send(`/${view}/begin`, { mode, offer: sdp, reason: $("reason").value, case: $("case").value });
    if (told.said) { say(told.said); stop(); return; }
    $("running").hidden = false;
    show(told);
    timer = setInterval(look, LOOK_MS);
  } catch {
    say(page.dataset.failed);
    stop();
  }
}

async function look() {
  const asked = view;
  let told;
  try {
    told = await read(await fetch(`${base}/${asked}/state`));
  } catch {
    return; // the next look will tell
  }
  if (asked === view) show(told);
}

function show(told) {
  until = Date.now() + told.left_s * 1000;
  $("others").textContent = told.others;
  if (told.sdp && peer && !answered) {
    answered = true;
    state(page.dataset.connecting);
    peer.setRemoteDescription({ type: "answer", sdp: told.sdp }).catch(() => say(page.dataset.failed));
  }
  $("rate").textContent = [told.rate, told.age].filter(Boolean).join(" · ");
  $("rate").hidden = !told.rate;
  if (told.still > shown) {
    shown = told.still;
    picture.src = `${base}/${view}/still?${shown}`;
    picture.hidden = false;
    state(page.dataset.playing);
  }
  if (told.over) over(told);
}

function over(told) {
  const thin = mode === "video" && (told.why === "noway" || told.why === "other") && video.videoWidth === 0;
  stop();
  state(`${page.dataset.over} ${told.over}`);
  if (thin) { say(`${page.dataset.thin} ${told.over}`); begin("stills"); }
}

function stop() {
  clearInterval(timer);
  if (peer) peer.close();
  peer = null;
  view = "";
  video.srcObject = null;
  video.hidden = picture.hidden = true;
  picture.removeAttribute("src");
  $("rate").hidden = true;
  $("running").hidden = true;
  $("start").hidden = false;
}

$("start").addEventListener("submit", (event) => {
  event.preventDefault();
  say("");
  begin(event.submitter ? event.submitter.value : "video");
});

$("more").addEventListener("click", async () => {
  try { show(await send(`/${view}/more`, {})); } catch { say(page.dataset.failed); }
});

$("end").addEventListener("click", async () => {
  try { show(await send(`/${view}/end`, {})); } catch { say(page.dataset.failed); }
});

$("hold").addEventListener("click", async () => {
  if (!$("reason").reportValidity()) return;
  try { $("held").textContent = (await send("/hold", { reason: $("reason").value })).said; } catch { say(page.dataset.failed); }
});

setInterval(() => {
  const left = Math.max(0, Math.ceil((until - Date.now()) / 1000));
  $("left").textContent = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
}, 250);
