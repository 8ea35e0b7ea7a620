'use strict';
// The npm package eventsource and Node's own fetch as readers of streams, and ws as a reader of JSON that resumes.

const assert = require('node:assert/strict');
const net = require('node:net');
const { after, before, describe, test } = require('node:test');
const { EventSource } = require('eventsource');
const { Client, inTime, startServer } = require('./ws_client.js');

let server;
before(async () => {
  server = await startServer();
});
after(async () => {
  assert.equal(await server.stop(), 0, 'exit status after SIGTERM');
});

const cursor = ({ epoch, offset }) => `${epoch}:${offset}`;
const httpOf = ({ url }) => url.replace(/^ws/, 'http');

async function publish(topic, text, at = server) {
  const response = await fetch(`${httpOf(at)}/topics/${topic}`, { method: 'POST', body: text });
  assert.equal(response.status, 200);
  return response.json();
}

// An EventSource whose events come one after the other: { name, id, data }. It ends with its test.
class Source {
  constructor(t, url, options) {
    t.after(() => this.source.close());
    this.events = [];
    this.waiting = [];
    this.opens = 0;
    this.source = new EventSource(url, options);
    for (const name of ['message', 'binary', 'reset']) {
      this.source.addEventListener(name, ({ data, lastEventId }) => this.take({ name, id: lastEventId, data }));
    }
    this.source.addEventListener('open', () => (this.opens += 1));
  }

  take(event) {
    const taker = this.waiting.shift();
    if (taker) taker(event);
    else this.events.push(event);
  }

  next() {
    if (this.events.length > 0) return Promise.resolve(this.events.shift());
    return inTime(new Promise((resolve) => this.waiting.push(resolve)), 'event');
  }

  // Resolves when it has been open so many times.
  async opened(times = 1) {
    await inTime(
      (async () => {
        while (this.opens < times) await new Promise((resolve) => setTimeout(resolve, 5));
      })(),
      'open',
    );
  }
}

// A TCP proxy whose connections can be cut: its clients see a server that drops them. It ends with its test.
class Proxy {
  static async open(t, port) {
    const proxy = new Proxy();
    t.after(() => proxy.close());
    proxy.target = port;
    proxy.pairs = new Set();
    proxy.server = net.createServer((client) => {
      const peer = net.connect(proxy.target, '127.0.0.1');
      const pair = [client, peer];
      proxy.pairs.add(pair);
      for (const [from, to] of [pair, [peer, client]]) {
        from.on('error', () => {});
        from.on('close', () => {
          to.destroy();
          proxy.pairs.delete(pair);
        });
        from.pipe(to);
      }
    });
    await new Promise((resolve) => proxy.server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get url() {
    return `http://127.0.0.1:${this.server.address().port}`;
  }

  cut() {
    for (const [client, peer] of this.pairs) {
      client.resetAndDestroy();
      peer.destroy();
    }
  }

  async close() {
    this.cut();
    await new Promise((resolve) => this.server.close(resolve));
  }
}

const portOf = ({ url }) => Number(new URL(url).port);

// Says in an answer how long a client waits before it comes again, where the server says three seconds.
const hasty = {
  fetch: async (url, init) => {
    const response = await fetch(url, init);
    const retry = new TransformStream({
      transform(chunk, controller) {
        const text = Buffer.from(chunk).toString('latin1');
        controller.enqueue(Buffer.from(text.replace(/^retry: \d+$/m, 'retry: 20'), 'latin1'));
      },
    });
    const { status, headers } = response;
    const body = response.body.pipeThrough(retry);
    return { status, headers, body, url: response.url, redirected: response.redirected };
  },
};

describe('eventsource', () => {
  test('receives text, lines and binary', async (t) => {
    const source = new Source(t, `${httpOf(server)}/topics/kinds`);
    await source.opened();
    const first = await publish('kinds', 'grüße');
    assert.deepEqual(await source.next(), { name: 'message', id: cursor(first), data: 'grüße' });
    await publish('kinds', 'two\nlines\n');
    assert.equal((await source.next()).data, 'two\nlines\n');
    await publish('kinds', Buffer.from([0, 255]));
    const binary = await source.next();
    assert.equal(binary.name, 'binary');
    assert.deepEqual(Buffer.from(JSON.parse(binary.data).base64, 'base64'), Buffer.from([0, 255]));
  });

  test('resumes without loss when it is dropped before the first message', async (t) => {
    const proxy = await Proxy.open(t, portOf(server));
    const source = new Source(t, `${proxy.url}/topics/early`, hasty);
    let started;
    const start = inTime(new Promise((resolve) => (started = resolve)), 'start');
    source.source.addEventListener('start', started);
    const { lastEventId, data } = await start;
    assert.match(lastEventId, /^\d+:0$/);
    assert.equal(data, '');
    proxy.cut();
    const first = await publish('early', 'while nobody was there');
    assert.deepEqual(await source.next(), { name: 'message', id: cursor(first), data: 'while nobody was there' });
  });

  test('resumes without loss or repeat when it is dropped again and again', async (t) => {
    const proxy = await Proxy.open(t, portOf(server));
    const source = new Source(t, `${proxy.url}/topics/dropped`, hasty);
    await source.opened();
    const count = 400;
    const publisher = (async () => {
      for (let number = 0; number < count; number += 1) {
        await publish('dropped', `${number}`);
        if (number % 80 === 40) proxy.cut();
      }
    })();
    for (let number = 0; number < count; number += 1) {
      const event = await source.next();
      assert.equal(event.name, 'message');
      assert.equal(event.data, `${number}`);
    }
    await publisher;
    assert.ok(source.opens > 1, 'it was never dropped');
  });

  test('waits as long as the server says', async (t) => {
    const proxy = await Proxy.open(t, portOf(server));
    const source = new Source(t, `${proxy.url}/topics/patient`);
    await source.opened();
    await publish('patient', 'x');
    await source.next();
    const began = Date.now();
    proxy.cut();
    await source.opened(2);
    const waited = Date.now() - began;
    assert.ok(waited >= 2900 && waited < 8000, `${waited} ms instead of retry: 3000`);
  });

  test('sees a reset when the server has lost its past', async (t) => {
    const first = await startServer();
    const second = await startServer();
    t.after(async () => assert.deepEqual(await Promise.all([first.stop(), second.stop()]), [0, 0]));
    const proxy = await Proxy.open(t, portOf(first));
    const source = new Source(t, `${proxy.url}/topics/restarted`, hasty);
    await source.opened();
    const before = await publish('restarted', 'before', first);
    assert.equal((await source.next()).id, cursor(before));
    proxy.target = portOf(second);
    proxy.cut();
    const reset = await source.next();
    assert.equal(reset.name, 'reset');
    const place = JSON.parse(reset.data);
    assert.equal(place.reset, true);
    assert.equal(reset.id, cursor(place));
    const after = await publish('restarted', 'after', second);
    assert.deepEqual(await source.next(), { name: 'message', id: cursor(after), data: 'after' });
    assert.equal(after.offset, place.offset + 1);
  });

  test('several topics on one stream resume together', async (t) => {
    const proxy = await Proxy.open(t, portOf(server));
    const topics = ['several/a', 'several/b', 'several/c'];
    const source = new Source(t, `${proxy.url}/topics/${topics.join(',')}`, hasty);
    await source.opened();
    const count = 150;
    const publisher = (async () => {
      for (let number = 0; number < count; number += 1) {
        for (const topic of topics) await publish(topic, `${number}`);
        if (number % 50 === 25) proxy.cut();
      }
    })();
    const next = Object.fromEntries(topics.map((topic) => [topic, 0]));
    for (let seen = 0; seen < count * topics.length; seen += 1) {
      const event = await source.next();
      const message = JSON.parse(event.data);
      assert.equal(message.text, `${next[message.topic]}`, message.topic);
      next[message.topic] += 1;
      assert.equal(event.id.split(',')[topics.indexOf(message.topic)], cursor(message));
    }
    await publisher;
    assert.ok(source.opens > 1, 'it was never dropped');
  });
});

describe("Node's fetch", () => {
  test('reads lines of JSON while they come', async () => {
    await publish('fetched', 'past');
    const abort = new AbortController();
    const response = await fetch(`${httpOf(server)}/topics/fetched?stream=1&history=1`, { signal: abort.signal });
    assert.equal(response.headers.get('content-type'), 'application/x-ndjson');
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    const line = async () => {
      while (!text.includes('\n')) text += (await inTime(reader.read(), 'line')).value;
      const end = text.indexOf('\n');
      const message = JSON.parse(text.slice(0, end));
      text = text.slice(end + 1);
      return message;
    };
    assert.equal((await line()).text, 'past');
    for (let number = 0; number < 20; number += 1) {
      const place = await publish('fetched', `${number}`);
      const message = await line();
      assert.deepEqual([message.text, cursor(message)], [`${number}`, cursor(place)]);
    }
    abort.abort();
  });

  test('polls', async () => {
    const start = await fetch(`${httpOf(server)}/topics/polled?wait=0s`);
    assert.deepEqual(await start.json(), []);
    let after = start.headers.get('holdline-cursor');
    for (let number = 0; number < 5; number += 1) {
      const answer = fetch(`${httpOf(server)}/topics/polled?wait=10s&since=${after}`);
      await publish('polled', `${number}`);
      const response = await inTime(answer, 'poll');
      assert.deepEqual((await response.json()).map(({ text }) => text), [`${number}`]);
      after = response.headers.get('holdline-cursor');
    }
  });
});

describe('ws with format=json', () => {
  const open = (topic, query) => Client.open(`${server.url}/topics/${topic}?format=json${query}`);

  test('resumes where it was', async () => {
    let client = await open('sockets', '');
    await client.settled();
    const count = 300;
    let last;
    const publisher = (async () => {
      for (let number = 0; number < count; number += 1) await publish('sockets', `${number}`);
    })();
    for (let number = 0; number < count; number += 1) {
      const message = JSON.parse(await client.next());
      assert.equal(message.text, `${number}`);
      last = cursor(message);
      if (number % 60 === 30) {
        client.ws.terminate();
        client = await open('sockets', `&since=${last}`);
      }
    }
    await publisher;
    await client.close();
  });

  test('is told what it missed for ever', async () => {
    const client = await open('never', '&since=1:17');
    const reset = JSON.parse(await client.next());
    assert.deepEqual(Object.keys(reset), ['topic', 'epoch', 'offset', 'reset']);
    const place = await publish('never', 'x');
    assert.equal(place.offset, reset.offset + 1);
    assert.equal(cursor(JSON.parse(await client.next())), cursor(place));
    await client.close();
  });
});
