// Live view: WebRTC to the post itself, signalled by the station; stills where no connection comes about.
"use strict";

const LOOK_MS = 1000;
const GATHER_MS_MAX = 3000;
const RELAY_MS_MAX = 8000; // where UDP is shut: by TLS, over a slow network
const THIN_MS = 10000; // with less than a picture every two seconds for so long, single pictures show as much
const LATE_MS_MAX = 5000; // behind the first picture: what is shown as live is not
const ANSWER_MS_MAX = 5000;
const SILENT_MS_MAX = 5000; // without an answer of the station: no picture is shown as live any more
const OVER = [403, 404]; // the station knows no such view, or it is not for these eyes any more
const RTP_PER_MS = 90;
const $ = (id) => document.getElementById(id);

const page = $("live");
const base = `/live/${page.dataset.post}`;
const video = $("video"), picture = $("still");
let view = "", peer = null, mode = "", answered = false, shown = 0, until = 0, timer = 0, since = 0, seen = 0, early = 0, late = 0, heard = 0, silent = false;

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

// Every address that is to be had; or, soon, those there are, if one of them is a server's that both sides reach.
function gathered(one, relays) {
  return new Promise((done) => {
    const begun = Date.now();
    const ask = setInterval(() => {
      const ms = Date.now() - begun;
      const enough = !relays || / typ relay /.test(one.localDescription.sdp);
      if (one.iceGatheringState === "complete" || ms > (enough ? GATHER_MS_MAX : RELAY_MS_MAX)) { clearInterval(ask); done(); }
    }, 50);
  });
}

function playsH264() {
  return RTCRtpReceiver.getCapabilities("video").codecs.some((one) => /h264/i.test(one.mimeType));
}

async function offer(ice) {
  peer = new RTCPeerConnection({ iceServers: ice.map((one) => ({ urls: one.url, username: one.username, credential: one.credential })) });
  window.wardpostPeer = peer; // for whoever looks at its statistics
  const line = peer.addTransceiver("video", { direction: "recvonly" });
  const codecs = RTCRtpReceiver.getCapabilities("video").codecs.filter((one) => /\/(h264|rtx)$/i.test(one.mimeType));
  line.setCodecPreferences(codecs);
  peer.addEventListener("track", (event) => {
    video.srcObject = event.streams[0] || new MediaStream([event.track]);
    video.hidden = false;
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(timed);
  });
  peer.addEventListener("connectionstatechange", () => {
    if (!peer || peer.connectionState !== "connected") return;
    state(page.dataset.playing);
    since = Date.now();
  });
  await peer.setLocalDescription(await peer.createOffer());
  await gathered(peer, ice.some((one) => /^turns?:/.test(one.url)));
  return peer.localDescription.sdp;
}

async function begin(wanted) {
  mode = wanted;
  if (mode === "video" && !playsH264()) {
    mode = "stills";
    say(page.dataset.nocodec);
  }
  answered = false;
  shown = since = seen = late = 0;
  silent = false;
  early = Infinity;
  $("start").hidden = true;
  state(page.dataset.asking);
  try {
    const opened = await send("/open", {});
    view = opened.view;
    const sdp = mode === "video" ? await offer(opened.ice) : "";
    const told = await send(`/${view}/begin`, { mode, offer: sdp, reason: $("reason").value, case: $("case").value });
    if (told.said) { say(told.said); stop(); return; }
    $("running").hidden = false;
    heard = Date.now();
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
    told = await read(await fetch(`${base}/${asked}/state`, { signal: AbortSignal.timeout(ANSWER_MS_MAX) }));
  } catch (error) {
    if (asked === view) unanswered(error);
    return;
  }
  if (asked !== view) return;
  heard = Date.now();
  if (silent) again();
  show(told);
  if (mode === "video" && view && since && tooThin()) instead(page.dataset.slow);
}

// A view that the station does not know is over. Where nothing answers, the next look may; what is shown until then is old,
// but for a video that comes from the post itself.
function unanswered(error) {
  if (error.status === 401) return; // on the way to the login
  if (OVER.includes(error.status)) { stop(); state(page.dataset.forgotten); return; }
  if (Date.now() - heard < SILENT_MS_MAX) return;
  silent = true;
  if (!plays()) video.hidden = picture.hidden = $("rate").hidden = true;
  state(page.dataset.silent);
}

function plays() {
  return peer !== null && peer.connectionState === "connected";
}

function again() {
  silent = false;
  video.hidden = video.srcObject === null;
  state(plays() ? page.dataset.playing : page.dataset.asking); // a still says so itself, when there is a new one
}

async function ask(path) {
  const asked = view;
  try {
    show(await send(`/${asked}/${path}`, {}));
  } catch (error) {
    if (asked !== view) return;
    if (OVER.includes(error.status)) unanswered(error);
    else say(page.dataset.failed);
  }
}

// How late a picture is against the earliest one: by its own time, which the post gave it.
function timed(now, picture) {
  if (picture.rtpTimestamp !== undefined) {
    const behind = now - picture.rtpTimestamp / RTP_PER_MS;
    early = Math.min(early, behind);
    late = behind - early;
  }
  if (peer) video.requestVideoFrameCallback(timed);
}

// Whether what comes is long past, or hardly anything came in the last seconds: lost, or never whole.
function tooThin() {
  if (late > LATE_MS_MAX) return true;
  const ms = Date.now() - since;
  if (ms < THIN_MS) return false;
  const pictures = video.getVideoPlaybackQuality().totalVideoFrames;
  const thin = (pictures - seen) * 2000 < ms;
  since = Date.now();
  seen = pictures;
  return thin && !document.hidden; // a page that nobody sees decodes nothing
}

async function instead(why) {
  const asked = view;
  stop();
  say(why);
  $("start").hidden = true;
  await send(`/${asked}/end`, {}).catch(() => {}); // the station ends it by itself when it hears nothing
  begin("stills");
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
  const lost = ["noway", "gone", "thin"].includes(told.why) || (told.why === "other" && video.videoWidth === 0);
  const thin = mode === "video" && lost;
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

$("more").addEventListener("click", () => ask("more"));
$("end").addEventListener("click", () => ask("end"));

$("hold").addEventListener("click", async () => {
  if (!$("reason").reportValidity()) return;
  try { $("held").textContent = (await send("/hold", { reason: $("reason").value })).said; } catch { say(page.dataset.failed); }
});

setInterval(() => {
  const left = Math.max(0, Math.ceil((until - Date.now()) / 1000));
  $("left").textContent = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
}, 250);
