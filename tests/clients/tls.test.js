'use strict';
// TLS from Node: the npm packages ws and eventsource, the built-in fetch and WebSocket, node:https and node:http2, all of
// which check the server's certificate against an authority of the test's own.

const assert = require('node:assert/strict');
const { execFile } = require('node:child_process');
const { randomBytes } = require('node:crypto');
const http2 = require('node:http2');
const https = require('node:https');
const path = require('node:path');
const { Readable } = require('node:stream');
const tls = require('node:tls');
const { after, before, describe, test } = require('node:test');
const { promisify } = require('node:util');
const { EventSource } = require('eventsource');
const { Authority } = require('./authority.js');
const { Client, inTime, once, startServer } = require('./ws_client.js');

const authority = new Authority();
const ca = authority.pem;
let server;
let origin;
before(async () => {
  server = await startServer({ certificate: authority.issue('edge') });
  origin = server.url.replace(/^wss/, 'https');
});
after(async () => {
  assert.equal(await server.stop(), 0, 'exit status after SIGTERM');
});

const connect = (path, options) => Client.open(server.url + path, { ca, ...options });

// The answer to a request over https: { status, fields, body }.
async function ask(path, { method = 'GET', body, ...options } = {}) {
  const request = https.request(origin + path, { ca, method, agent: false, ...options });
  request.end(body);
  const [answer] = await once(request, 'response');
  const pieces = await inTime(answer.toArray(), 'the body');
  return { status: answer.statusCode, fields: answer.headers, body: Buffer.concat(pieces) };
}

const publish = async (topic, text) => {
  const answer = await ask(`/topics/${topic}`, { method: 'POST', body: text });
  assert.equal(answer.status, 200);
  return JSON.parse(answer.body);
};

describe('ws', () => {
  for (const maxVersion of ['TLSv1.3', 'TLSv1.2']) {
    test(`text and binary of many sizes over ${maxVersion}`, async () => {
      const client = await connect('/echo', { maxVersion });
      assert.equal(client.ws._socket.getProtocol(), maxVersion);
      for (const size of [0, 1, 125, 126, 16_383, 16_384, 16_385, 65_536, 400_000]) {
        const text = 'abcdefgh'.repeat(size / 8 + 1).slice(0, size);
        client.ws.send(text);
        assert.equal(await client.next(), text);
        const data = randomBytes(size);
        client.ws.send(data);
        assert.deepEqual(await client.next(), data);
      }
      assert.equal(await client.close(), 1000);
    });
  }

  test('a chat, and a topic that plain members would hear alike', async () => {
    const ann = await connect('/chat/secure?name=Ann');
    assert.equal(await ann.next(), 'Ann joined the chat');
    const bob = await connect('/chat/secure?name=Bob');
    assert.equal(await ann.next(), 'Bob joined the chat');
    assert.equal(await bob.next(), 'Bob joined the chat');
    for (let number = 0; number < 100; number += 1) (number % 2 ? ann : bob).ws.send(`${number}`);
    const [hers, his] = [[], []];
    while (hers.length < 100) hers.push(await ann.next());
    while (his.length < 100) his.push(await bob.next());
    assert.deepEqual(hers, his);
    for (const [name, rest] of [['Ann', 1], ['Bob', 0]]) {
      const own = hers.filter((line) => line.startsWith(name));
      assert.deepEqual(own, Array.from({ length: 50 }, (_, number) => `${name}: ${2 * number + rest}`));
    }
    await bob.close();
    assert.equal(await ann.next(), 'Bob left the chat');
    await ann.close();
  });

  test('who does not trust the authority, or asks for another host, is not connected', async () => {
    await assert.rejects(Client.open(`${server.url}/echo`), { code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' });
    await assert.rejects(connect('/echo', { servername: 'other.example' }), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
  });

  test('a session is resumed', async () => {
    const first = await connect('/echo');
    // What is answered comes behind the ticket, which in TLS 1.3 follows the handshake.
    await first.settled();
    const session = first.ws._socket.getSession();
    assert.equal(first.ws._socket.isSessionReused(), false);
    await first.close();
    const second = await connect('/echo', { session });
    assert.equal(second.ws._socket.isSessionReused(), true);
    second.ws.send('again');
    assert.equal(await second.next(), 'again');
    await second.close();
  });
});

describe('HTTP/1.1', () => {
  test('a publication, its history, and a page', async () => {
    const place = await publish('tls-past', 'grüße');
    const history = JSON.parse((await ask('/topics/tls-past/history')).body);
    assert.deepEqual(history.map(({ offset, text }) => [offset, text]), [[place.offset, 'grüße']]);
    const page = await ask('/');
    assert.equal(page.status, 200);
    assert.match(page.fields['content-type'], /^text\/html/);
  });

  test('one connection bears many requests', async () => {
    const agent = new https.Agent({ ca, keepAlive: true, maxSockets: 1 });
    const sockets = new Set();
    agent.on('free', (socket) => sockets.add(socket));
    for (let number = 0; number < 20; number += 1) {
      const { status } = await ask('/topics/tls-kept/info', { agent });
      assert.equal(status, 200);
    }
    assert.equal(sockets.size, 1);
    agent.destroy();
  });

  test('a stream of events, resumed at its last id after the connection was cut', async (t) => {
    // The package asks by `fetch`, which is given one that trusts the authority.
    const requests = [];
    const fetch = (url, { headers, signal }) =>
      new Promise((resolve, reject) => {
        const request = https.get(url, { ca, agent: false, headers, signal }, (answer) => {
          const { statusCode: status, headers: fields } = answer;
          resolve({ url: String(url), status, redirected: false, headers: new Headers(fields), body: Readable.toWeb(answer) });
        });
        request.on('error', reject);
        requests.push({ request, last: headers['Last-Event-ID'] });
      });
    const source = new EventSource(`${origin}/topics/tls-events`, { fetch });
    t.after(() => source.close());
    const [events, waiting] = [[], []];
    source.addEventListener('message', (event) => (waiting.length ? waiting.shift()(event) : events.push(event)));
    const next = () => (events.length ? events.shift() : inTime(new Promise((resolve) => waiting.push(resolve)), 'event'));
    await inTime(new Promise((resolve) => source.addEventListener('open', resolve, { once: true })), 'open');
    let last;
    for (let number = 0; number < 20; number += 1) {
      await publish('tls-events', `${number}`);
      const event = await next();
      assert.equal(event.data, `${number}`);
      last = event.lastEventId;
    }
    requests[0].request.destroy();
    for (let number = 20; number < 25; number += 1) await publish('tls-events', `${number}`);
    for (let number = 20; number < 25; number += 1) assert.equal((await next()).data, `${number}`);
    assert.deepEqual(requests.map((request) => request.last), [undefined, last]);
  });
});

describe('HTTP/2', () => {
  let session;
  before(async () => {
    session = http2.connect(origin, { ca });
    await once(session, 'connect');
  });
  after(() => session.destroy());

  const request = (fields, body) => {
    const stream = session.request(fields, { endStream: body === undefined });
    if (body !== undefined) stream.end(body);
    return stream;
  };

  // The answer on a stream: { status, body }.
  async function answer(stream) {
    const [fields] = await once(stream, 'response');
    return { status: fields[':status'], body: Buffer.concat(await inTime(stream.toArray(), 'the body')) };
  }

  test('is what ALPN agrees on', async () => {
    assert.equal(session.alpnProtocol, 'h2');
    for (const [offered, agreed] of [[['http/1.1'], 'http/1.1'], [['h2', 'http/1.1'], 'h2']]) {
      const { port } = new URL(origin);
      const socket = tls.connect({ host: '127.0.0.1', port, servername: 'localhost', ca, ALPNProtocols: offered });
      await once(socket, 'secureConnect');
      assert.deepEqual([socket.alpnProtocol, socket.authorized], [agreed, true]);
      socket.destroy();
    }
  });

  test('many streams of one connection publish, and one hears them all', async () => {
    const events = request({ ':path': '/topics/tls-h2', accept: 'text/event-stream' });
    const [fields] = await once(events, 'response');
    assert.deepEqual([fields[':status'], fields['content-type']], [200, 'text/event-stream']);
    let text = '';
    events.setEncoding('utf8').on('data', (piece) => (text += piece));
    const texts = Array.from({ length: 80 }, (_, number) => `${number}`);
    const answers = await Promise.all(
      texts.map((text) => answer(request({ ':path': '/topics/tls-h2', ':method': 'POST' }, text))));
    assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
    const offsets = answers.map(({ body }) => JSON.parse(body).offset);
    assert.deepEqual(offsets.toSorted((a, b) => a - b), Array.from({ length: 80 }, (_, number) => number + 1));
    const data = () => [...text.matchAll(/^data: (\d+)$/gm)].map(([, number]) => number);
    await inTime((async () => {
      while (data().length < 80) await once(events, 'data');
    })(), 'all events');
    // In the order of their places.
    assert.deepEqual(data(), texts.toSorted((a, b) => offsets[a] - offsets[b]));
    events.close();
  });

  test('a body over many windows, there and back', async () => {
    const long = randomBytes(700_000).toString('base64').slice(0, 900_000);
    const { status, body } = await answer(request({ ':path': '/topics/tls-long', ':method': 'POST' }, long));
    assert.equal(status, 200, body);
    const history = await answer(request({ ':path': '/topics/tls-long/history' }));
    assert.equal(JSON.parse(history.body)[0].text, long);
  });
});

describe('what is built into Node', () => {
  const script = path.join(__dirname, 'tls_builtin.js');
  const flags = globalThis.WebSocket ? [] : ['--experimental-websocket'];
  const run = async (topic, trust) => {
    const env = { ...process.env, NODE_EXTRA_CA_CERTS: trust };
    if (!trust) delete env.NODE_EXTRA_CA_CERTS;
    const { stdout } = await promisify(execFile)(process.execPath, [...flags, script, origin, topic], { env, timeout: 60_000 });
    return JSON.parse(stdout);
  };

  test('WebSocket, EventSource and fetch', async () => {
    const { socket, events, places, echoed, codes } = await run('tls-builtin', authority.file);
    assert.deepEqual(socket, events);
    for (const name of ['socket', 'fetch']) {
      const own = socket.filter((text) => text.startsWith(name));
      assert.deepEqual(own, Array.from({ length: 50 }, (_, number) => `${name} ${number}`));
    }
    assert.deepEqual(places, [...places].sort((a, b) => a - b));
    assert.equal(echoed, 300_000);
    assert.deepEqual(codes, [[1000, true], [1000, true]]);
  });

  test('without the authority they refuse the server', async () => {
    assert.deepEqual(await run('tls-refused'), { refused: ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'WebSocket'] });
  });
});
