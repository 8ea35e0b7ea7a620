'use strict';
// node tls_builtin.js URL TOPIC: what Node has by itself, over TLS. It is a process of its own since these ask none but the
// trust of the whole process, which NODE_EXTRA_CA_CERTS adds to as it starts. The last line of its output is JSON: what
// WebSocket, EventSource (of npm, over the built-in fetch) and fetch heard of what was published, or why they could not.

const { EventSource } = require('eventsource');
const { inTime } = require('./ws_client.js');

const [url, topic] = process.argv.slice(2);
const MESSAGES = 50;

// Resolves to the first messages of an emitter of events with data, and rejects when it fails.
const heard = (source, count) =>
  inTime(
    new Promise((resolve, reject) => {
      const messages = [];
      source.addEventListener('message', ({ data }) => {
        if (messages.push(data) === count) resolve(messages);
      });
      source.addEventListener('error', (event) => reject(new Error(event.message || 'it failed')));
    }),
    'messages',
  );

const opened = (source) =>
  inTime(new Promise((resolve, reject) => {
    source.addEventListener('open', resolve);
    source.addEventListener('error', (event) => reject(new Error(event.message || 'it failed')));
  }), 'open');

async function main() {
  const socket = new WebSocket(`${url.replace(/^http/, 'ws')}/topics/${topic}`);
  await opened(socket);
  const events = new EventSource(`${url}/topics/${topic}`);
  await opened(events);
  const [fromSocket, fromEvents] = [heard(socket, 2 * MESSAGES), heard(events, 2 * MESSAGES)];
  const places = [];
  for (let number = 0; number < MESSAGES; number += 1) {
    socket.send(`socket ${number}`);
    const answer = await fetch(`${url}/topics/${topic}`, { method: 'POST', body: `fetch ${number}` });
    places.push((await answer.json()).offset);
  }
  const said = { socket: await fromSocket, events: await fromEvents, places };
  // A message larger than a record of TLS, there and back.
  const echo = new WebSocket(`${url.replace(/^http/, 'ws')}/echo`);
  await opened(echo);
  echo.send('x'.repeat(300_000));
  said.echoed = (await heard(echo, 1))[0].length;
  const closed = [socket, echo].map((client) => inTime(new Promise((resolve) => client.addEventListener('close', resolve)), 'close'));
  for (const client of [socket, echo]) client.close(1000);
  events.close();
  said.codes = (await Promise.all(closed)).map(({ code, wasClean }) => [code, wasClean]);
  return said;
}

async function refused() {
  const why = [];
  await fetch(`${url}/topics/${topic}/info`).catch((error) => why.push(error.cause?.code ?? String(error)));
  await opened(new WebSocket(`${url.replace(/^http/, 'ws')}/echo`)).catch(() => why.push('WebSocket'));
  return { refused: why };
}

(process.env.NODE_EXTRA_CA_CERTS ? main() : refused()).then(
  (said) => {
    console.log(JSON.stringify(said));
    process.exit(0);
  },
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
