// The built-in chat page: one WebSocket to /chat/{room}, and a connection that comes back by itself.
"use strict";

const LINES_MAX = 500;
const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 15000;

const $ = (id) => document.getElementById(id);
const me = { name: "", room: "" };
let socket = null;
let retry = { delay: RETRY_FIRST_MS, timer: 0 };

function remembered(key) {
  try { return localStorage.getItem(key) || ""; } catch { return ""; }
}

function remember(key, value) {
  try { localStorage.setItem(key, value); } catch { /* A private window: not remembered. */ }
}

function show(state, text) {
  $("state").dataset.state = state;
  $("state-text").textContent = text;
  $("send-button").disabled = state !== "on";
}

function add(item) {
  const log = $("log");
  const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  log.append(item);
  while (log.children.length > LINES_MAX) log.firstElementChild.remove();
  if (follows) log.scrollTop = log.scrollHeight;
}

function note(text) {
  const item = document.createElement("li");
  item.className = "note";
  item.textContent = text;
  add(item);
}

function said(name, text) {
  const item = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  if (name === me.name) {
    item.className = "mine";
  } else {
    const who = document.createElement("b");
    let hue = 0;
    for (const char of name) hue = (hue * 31 + char.codePointAt(0)) % 360;
    who.style.setProperty("--hue", hue);
    who.textContent = name;
    item.append(who);
  }
  item.append(document.createTextNode(text), time);
  add(item);
}

// The server says "N: text", "N joined the chat" and "N left the chat".
function receive(line) {
  const mine = me.name + ": ";
  const cut = line.startsWith(mine) ? me.name.length : line.indexOf(": ");
  if (cut > 0) said(line.slice(0, cut), line.slice(cut + 2));
  else note(line);
}

function connect() {
  clearTimeout(retry.timer);
  show("wait", "Connecting…");
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const room = encodeURIComponent(me.room);
  const opened = new WebSocket(`${scheme}//${location.host}/chat/${room}?name=${encodeURIComponent(me.name)}`);
  socket = opened;
  opened.onopen = () => {
    retry.delay = RETRY_FIRST_MS;
    show("on", "Connected");
  };
  opened.onmessage = (event) => {
    if (typeof event.data === "string") receive(event.data);
  };
  opened.onclose = (event) => {
    if (socket === opened) reconnectLater(event.reason);
  };
}

// Twice as long each time, and spread, so that a server that restarts is not stormed; at least as long as it asks for.
function reconnectLater(reason) {
  socket = null;
  const asked = /^retry after (\d{1,6}) ms$/.exec(reason);
  const wait = Math.max(retry.delay * (0.5 + Math.random()), asked ? Number(asked[1]) : 0);
  retry.delay = Math.min(retry.delay * 2, RETRY_MAX_MS);
  show("off", `Reconnecting in ${Math.max(1, Math.round(wait / 1000))} s`);
  retry.timer = setTimeout(connect, wait);
}

function join(event) {
  event.preventDefault();
  // A room's name has no spaces.
  me.room = $("room").value.trim().replace(/\s+/g, "-");
  me.name = $("name").value.trim() || "guest-" + Math.random().toString(36).slice(2, 6);
  if (!me.room) return;
  remember("holdline-name", $("name").value.trim());
  history.replaceState(null, "", "#" + encodeURIComponent(me.room));
  $("place").textContent = `# ${me.room}`;
  $("log").replaceChildren();
  inRoom(true);
  connect();
  $("text").focus();
}

function leave() {
  clearTimeout(retry.timer);
  const left = socket;
  socket = null;
  if (left) left.close(1000);
  inRoom(false);
  $("place").textContent = "chat";
  show("idle", "Not connected");
}

function inRoom(yes) {
  $("welcome").hidden = yes;
  $("chat").hidden = !yes;
  $("leave").hidden = !yes;
}

$("join").addEventListener("submit", join);
$("leave").addEventListener("click", leave);
$("send").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || !socket || socket.readyState !== WebSocket.OPEN) return;
  socket.send(text);
  $("text").value = "";
  $("text").focus();
});
window.addEventListener("online", () => {
  if (!$("chat").hidden && !socket) connect();
});

$("name").value = remembered("holdline-name");
try {
  $("room").value = decodeURIComponent(location.hash.slice(1)) || "lobby";
} catch { /* A hash that is not ours. */ }
