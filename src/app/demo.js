// The built-in chat page: a room's lines over a WebSocket, or over server-sent events where no WebSocket gets
// through. It comes back by itself and goes on where it was.
"use strict";

const LINES_MAX = 500;
const PEOPLE_MAX = 200;
const ROOM_CHARS_MAX = 60;
const HISTORY = 20;
const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 15000;
// A proxy that swallows the handshake says nothing at all.
const OPEN_MS_MAX = 10000;
const SETTLE_MS_MAX = 3000;
const FAILURES_MAX = 2;
const TRY_WEBSOCKET_AGAIN_MS = 30000;

const JOINED = " joined the chat";
const LEFT = " left the chat";

const $ = (id) => document.getElementById(id);
const forced = new URLSearchParams(location.search).get("transport");
// Where the server asks for one, it is in the page's own URL, and goes into that of everything that is asked for.
const token = new URLSearchParams(location.search).get("token");
const me = { name: "", room: "" };

// What is known between joining a room and leaving it; null outside.
let session = null;

const newSession = () => ({
  link: null, // The connection: { kind, say(text), close() }.
  cursor: "", // The last line seen, `epoch:offset`.
  catching: null, // What has come since the link opened, until it is up to date: { divider, lines, reset }.
  caught: null, // The same, when it is.
  unheard: [], // What was said and has not come back.
  people: new Map(), // Name -> how many of it are here.
  failures: 0, // WebSockets in a row that brought nothing.
  delay: RETRY_FIRST_MS,
  timer: 0, // The next attempt.
  patience: 0, // The end of catching up, whatever comes.
});

function remembered(key) {
  try { return localStorage.getItem(key) || ""; } catch { return ""; }
}

function remember(key, value) {
  try { localStorage.setItem(key, value); } catch { /* A private window: not remembered. */ }
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

// --- The state, the lines, and who is here ---

function show(state, text, transport = "") {
  $("state").dataset.state = state;
  $("state-text").textContent = text;
  $("transport").textContent = transport;
  $("transport").hidden = !transport;
  $("send-button").disabled = state !== "on";
}

function add(item) {
  const log = $("log");
  const follows = isAtEnd();
  log.append(item);
  while (log.children.length > LINES_MAX) log.firstElementChild.remove();
  if (follows) toEnd();
  else $("newest").hidden = false;
  return item;
}

function isAtEnd() {
  const log = $("log");
  return log.scrollHeight - log.scrollTop - log.clientHeight < 80;
}

function toEnd() {
  $("log").scrollTop = $("log").scrollHeight;
  $("newest").hidden = true;
}

const note = (text, className = "note") => add(element("li", className, text));

function clock(time) {
  const at = new Date(time);
  const made = element("time", "", at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  made.dateTime = at.toISOString();
  made.title = at.toLocaleString();
  return made;
}

function hue(name) {
  let sum = 0;
  for (const char of name) sum = (sum * 31 + char.codePointAt(0)) % 360;
  return sum;
}

function said(name, text, time) {
  const mine = name === me.name;
  const item = element("li", mine ? "mine" : "", "");
  item.dataset.name = name;
  item.classList.toggle("again", $("log").lastElementChild?.dataset.name === name);
  const who = element("b", mine ? "spoken" : "", mine ? "You" : name);
  who.style.setProperty("--hue", hue(name));
  item.append(who, element("span", "text", text));
  if (time) item.append(clock(time));
  add(item);
}

// Only what is seen here is known: who joins, who leaves, and who speaks.
function count(name, change) {
  const people = session.people;
  const now = (people.get(name) || 0) + change;
  if (now > 0) people.set(name, now);
  else people.delete(name);
  if (people.size > PEOPLE_MAX) people.delete(people.keys().next().value);
  showPeople();
}

function showPeople() {
  const names = [...session.people.keys()].sort((a, b) => (b === me.name) - (a === me.name) || a.localeCompare(b));
  $("here-count").textContent = names.length;
  $("people").replaceChildren(...names.map((name) => {
    const item = element("li", "", name === me.name ? `${name} (you)` : name);
    item.style.setProperty("--hue", hue(name));
    return item;
  }));
}

// --- What the server says ---

// { epoch, offset, time, text | base64 | reset }; what is said to this client alone has no place.
function take(message) {
  if (message.epoch !== undefined) session.cursor = `${message.epoch}:${message.offset}`;
  if (message.reset) missing();
  else if (typeof message.text === "string") receive(message.text, message.time);
  else note("(something that is no text)");
}

// The server says "N: text", "N joined the chat" and "N left the chat".
function receive(line, time) {
  const mine = me.name + ": ";
  const cut = line.startsWith(mine) ? me.name.length : line.indexOf(": ");
  if (cut > 0) spoken(line.slice(0, cut), line.slice(cut + 2), time);
  else if (line.endsWith(JOINED)) came(line.slice(0, -JOINED.length), line);
  else if (line.endsWith(LEFT)) went(line.slice(0, -LEFT.length), line);
  else note(line);
}

function spoken(name, text, time) {
  if (session.catching) session.catching.lines += 1;
  if (!session.people.has(name)) count(name, 1);
  const heard = name === me.name ? session.unheard.indexOf(text) : -1;
  if (heard >= 0) session.unheard.splice(heard, 1);
  said(name, text, time);
}

function came(name, line) {
  count(name, 1);
  // My own coming back is what the divider says.
  if (name !== me.name || !session.catching?.divider) note(line);
  // It stands behind all that was missed.
  if (name === me.name) settle();
}

function went(name, line) {
  count(name, -1);
  // I am here, so that was an earlier stay, and the line of this one is still to come.
  if (name === me.name && !session.people.has(name)) unsettle();
  if (name !== me.name || !session.catching?.divider) note(line);
}

// The server has not kept all that was missed. Nobody knows who has left meanwhile.
function missing() {
  session.people.clear();
  showPeople();
  if (session.catching) session.catching.reset = true;
  note("Some messages are missing here", "note gap");
}

// --- The connection ---

const credentials = token ? `&token=${encodeURIComponent(token)}` : "";

const roomPath = () => `/chat/${encodeURIComponent(me.room)}?name=${encodeURIComponent(me.name)}${credentials}`;

const infoPath = () => `/topics/${encodeURIComponent(`chat/${me.room}`)}/info?${credentials.slice(1)}`;

const streamPath = () => roomPath() + (session.cursor ? `&since=${session.cursor}` : `&history=${HISTORY}`);

const socketUrl = (path) => `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}${path}`;

const isCurrent = (link) => session !== null && session.link === link;

async function connect() {
  const mine = session;
  clearTimeout(mine.timer);
  show("wait", "Connecting…");
  const transport = await choose();
  if (session !== mine || mine.link) return;
  if (transport.refusal) return shutOut(transport.refusal);
  mine.link = transport === "sse" ? overEvents() : overSocket();
}

// No WebSocket, but other requests pass: something between blocks it, or the server does not let us in. When nothing
// passes, the server is away.
async function choose() {
  const mine = session;
  const kind = forced === "sse" ? "sse" : "websocket";
  if (mine.failures < FAILURES_MAX) return kind;
  const refusal = await refused();
  if (refusal) return { refusal };
  if (forced === "sse" || forced === "websocket") return kind;
  if (await answers()) return "sse";
  mine.failures = 0;
  return "websocket";
}

// Why the server does not let us in, where that is so: a WebSocket or a stream that fails cannot say.
async function refused() {
  try {
    const signal = AbortSignal.timeout(OPEN_MS_MAX);
    const answer = await fetch(infoPath(), { cache: "no-store", signal });
    if (answer.status !== 401 && answer.status !== 403) return "";
    return (await answer.json()).error.message;
  } catch {
    return "";
  }
}

function shutOut(why) {
  leave();
  show("off", `Not let in: ${why}`);
}

async function answers() {
  try {
    const signal = AbortSignal.timeout(OPEN_MS_MAX);
    return (await fetch("/demo.js", { method: "HEAD", cache: "no-store", signal })).ok;
  } catch {
    return false;
  }
}

function overSocket() {
  const socket = new WebSocket(socketUrl(`${streamPath()}&format=json`));
  const link = { kind: "WebSocket", say: (text) => socket.send(text), close: () => socket.close(1000) };
  const late = setTimeout(() => socket.close(), OPEN_MS_MAX);
  session.failures += 1;
  socket.onopen = () => {
    clearTimeout(late);
    if (isCurrent(link)) opened(link);
  };
  socket.onmessage = (event) => {
    if (!isCurrent(link) || typeof event.data !== "string") return;
    session.failures = 0;
    take(JSON.parse(event.data));
  };
  socket.onclose = (event) => {
    clearTimeout(late);
    if (isCurrent(link)) lost(event.reason);
  };
  return link;
}

function overEvents() {
  const source = new EventSource(streamPath());
  const link = { kind: forced ? "SSE" : "SSE fallback", say: post, close: () => source.close() };
  source.onopen = () => {
    if (isCurrent(link)) opened(link);
  };
  // The text alone has no time, so a line has the one at which it came, and those of the past have none.
  source.onmessage = (event) => {
    if (!isCurrent(link)) return;
    session.cursor = event.lastEventId;
    session.failures = 0;
    take({ text: event.data, time: session.catching ? 0 : Date.now() });
  };
  for (const kind of ["reset", "binary"]) {
    source.addEventListener(kind, (event) => isCurrent(link) && take(JSON.parse(event.data)));
  }
  source.onerror = () => {
    if (!isCurrent(link)) return;
    // The browser opens it again and names the last id; only an answer that is no stream ends it.
    if (source.readyState !== EventSource.CLOSED) return show("off", "Reconnecting…", link.kind);
    // Next a WebSocket, and if that fails once, events again.
    session.failures = forced ? session.failures + 1 : FAILURES_MAX - 1;
    lost("");
  };
  if (!forced) setTimeout(tryWebSocket, TRY_WEBSOCKET_AGAIN_MS, link);
  return link;
}

function opened(link) {
  const again = session.cursor !== "";
  session.catching = { divider: again ? note("Resuming…", "note divider") : null, lines: 0, reset: false };
  show("wait", again ? "Catching up…" : "Joining…", link.kind);
  waitForPast();
}

function waitForPast() {
  clearTimeout(session.patience);
  session.patience = setTimeout(settle, SETTLE_MS_MAX);
}

// The past has been seen: my own joining stands behind it.
function settle() {
  if (!session?.catching || !session.link) return;
  const { divider, lines, reset } = session.catching;
  session.caught = session.catching;
  session.catching = null;
  session.delay = RETRY_FIRST_MS;
  clearTimeout(session.patience);
  if (!session.people.has(me.name)) count(me.name, 1);
  if (divider) divider.textContent = reset ? "Reconnected" : `Resumed, ${caughtUp(lines)}`;
  show("on", "Connected", session.link.kind);
  for (const text of session.unheard.splice(0)) undelivered(text);
}

function unsettle() {
  if (session.catching || !session.link) return;
  session.catching = session.caught;
  waitForPast();
}

function caughtUp(lines) {
  if (lines === 0) return "nothing missed";
  return lines === 1 ? "1 message caught up" : `${lines} messages caught up`;
}

// Twice as long each time, and spread, so that a server that restarts is not stormed; at least as long as it asks for.
function lost(reason) {
  session.link = null;
  session.catching = null;
  clearTimeout(session.patience);
  const asked = /^retry after (\d{1,6}) ms$/.exec(reason);
  const wait = Math.max(session.delay * (0.5 + Math.random()), asked ? Number(asked[1]) : 0);
  session.delay = Math.min(session.delay * 2, RETRY_MAX_MS);
  show("off", `Reconnecting in ${Math.max(1, Math.round(wait / 1000))} s`);
  session.timer = setTimeout(connect, wait);
}

// While events carry the room, an echo shows whether a WebSocket passes now, and nobody sees me leave for it.
function tryWebSocket(link) {
  if (!isCurrent(link)) return;
  const socket = new WebSocket(socketUrl(`/echo?${credentials.slice(1)}`));
  let passes = false;
  socket.onopen = () => {
    passes = true;
    socket.close(1000);
  };
  socket.onclose = () => {
    if (!isCurrent(link)) return;
    if (!passes) return void setTimeout(tryWebSocket, TRY_WEBSOCKET_AGAIN_MS, link);
    link.close();
    session.link = null;
    session.failures = 0;
    connect();
  };
}

// --- Speaking ---

function say(text) {
  session.unheard.push(text);
  session.link.say(text);
}

async function post(text) {
  const mine = session;
  const request = { method: "POST", headers: { "Content-Type": "text/plain" }, body: text };
  const answer = await fetch(roomPath(), request).catch(() => null);
  if (session !== mine || answer?.ok) return;
  const at = session.unheard.indexOf(text);
  if (at < 0) return;
  session.unheard.splice(at, 1);
  undelivered(text);
}

// It goes back to where it was written, unless there is something new already.
function undelivered(text) {
  note(`Not delivered: ${text}`, "note gap");
  if (!$("text").value) $("text").value = text;
}

// --- The forms ---

function join(event) {
  event?.preventDefault();
  // A room's name has no spaces, and neither name has control characters.
  me.room = $("room").value.trim().replace(/[\s\p{Cc}]+/gu, "-");
  me.name = $("name").value.replace(/[\s\p{Cc}]+/gu, " ").trim() || "guest-" + Math.random().toString(36).slice(2, 6);
  if (!me.room) return;
  remember("holdline-name", $("name").value.trim());
  history.replaceState(null, "", "#" + encodeURIComponent(me.room));
  $("place").textContent = `# ${me.room}`;
  document.title = `${me.room} · Holdline chat`;
  $("log").replaceChildren();
  session = newSession();
  inRoom(true);
  showPeople();
  connect();
  $("text").focus();
}

function leave() {
  const { link, timer, patience } = session;
  clearTimeout(timer);
  clearTimeout(patience);
  session = null;
  link?.close();
  inRoom(false);
  $("place").textContent = "chat";
  document.title = "Holdline chat";
  show("idle", "Not connected");
  $("name").focus();
}

function inRoom(yes) {
  $("welcome").hidden = yes;
  $("chat").hidden = !yes;
  $("leave").hidden = !yes;
  $("newest").hidden = true;
}

function roomOfUrl() {
  try {
    const room = decodeURIComponent(location.hash.slice(1));
    return [...room].slice(0, ROOM_CHARS_MAX).join("") || "lobby";
  } catch {
    return "lobby";
  }
}

$("join").addEventListener("submit", join);
$("leave").addEventListener("click", leave);
$("send").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || $("send-button").disabled) return;
  say(text);
  $("text").value = "";
  $("text").focus();
});
$("newest").addEventListener("click", toEnd);
$("log").addEventListener("scroll", () => {
  if (isAtEnd()) $("newest").hidden = true;
});
window.addEventListener("online", () => {
  if (session && !session.link) connect();
});
window.addEventListener("hashchange", () => {
  $("room").value = roomOfUrl();
  if (!session || $("room").value === me.room) return;
  leave();
  join();
});

$("name").value = remembered("holdline-name");
$("room").value = roomOfUrl();
if ($("name").value) $("join").querySelector("button").focus();
else $("name").focus();
