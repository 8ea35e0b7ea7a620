'use strict';
// The npm package @grpc/grpc-js as a client, with services made of our files by @grpc/proto-loader; and buf curl. All of it
// without TLS and with it.

const assert = require('node:assert/strict');
const { execFile } = require('node:child_process');
const path = require('node:path');
const { after, before, describe, test } = require('node:test');
const { promisify } = require('node:util');
const { Authority } = require('./authority.js');
const { Client, inTime, once, startServer } = require('./ws_client.js');
const { edge, grpc, health } = require('./grpc_client.js');

// What trusts the server, which is in its certificate; null without TLS.
let ca;
let server;
let address;

// A call whose frames are taken one by one.
class Member {
  constructor(options) {
    this.call = edge(address, options, ca).Connect();
    this.inbox = [];
    this.waiting = [];
    this.call.on('data', (frame) => (this.waiting.length ? this.waiting.shift()(frame) : this.inbox.push(frame)));
    this.ended = new Promise((resolve) => this.call.on('status', resolve));
    this.call.on('error', () => {});
  }

  say(frame) {
    this.call.write(frame);
  }

  next() {
    if (this.inbox.length) return Promise.resolve(this.inbox.shift());
    return inTime(new Promise((resolve) => this.waiting.push(resolve)), 'frame');
  }

  async expect(kind) {
    const frame = await this.next();
    assert.equal(frame.frame, kind, JSON.stringify(frame));
    return frame;
  }

  async join(subscribe) {
    this.say({ id: 1, subscribe });
    return (await this.expect('subscribed')).subscribed;
  }

  async end() {
    this.call.cancel();
    await inTime(this.ended, 'the end');
  }
}

const unary = (method, request, options = {}) =>
  new Promise((resolve, reject) =>
    edge(address, options, ca)[method](request, (error, answer) => (error ? reject(error) : resolve(answer))),
  );

for (const secured of [false, true]) describe(secured ? 'over TLS' : 'without TLS', () => {
  let trusted;
  before(async () => {
    const authority = secured ? new Authority() : null;
    ca = authority?.pem ?? null;
    trusted = authority?.file;
    server = await startServer({ certificate: authority?.issue('edge') });
    address = server.url.replace(/^wss?:[/][/]127.0.0.1/, secured ? 'localhost' : '127.0.0.1');
  });
  after(async () => {
    assert.equal(await server.stop(), 0, 'exit status after SIGTERM');
  });

  test('a unary publication has its place, and the same key has it again', async () => {
    const request = { topic: 'npm-unary', text: 'hello', idempotency_key: 'k' };
    const first = await unary('Publish', request);
    assert.equal(first.cursor.offset, '1');
    const again = await unary('Publish', request);
    assert.deepEqual([again.cursor, again.duplicate, first.duplicate ?? false], [first.cursor, true, false]);
  });

  test('members hear each other and a WebSocket in one order', async () => {
    const members = [new Member(), new Member()];
    const socket = await Client.open(`${server.url}/topics/npm-chat`, ca ? { ca } : {});
    for (const member of members) await member.join({ topic: 'npm-chat' });
    await socket.settled();
    for (let number = 0; number < 100; number++) {
      members[number % 2].say({ id: number + 1, publish: { topic: 'npm-chat', text: `${number}` } });
      socket.ws.send(`socket ${number}`);
    }
    const heard = [];
    for (const member of members) {
      const [messages, places] = [[], []];
      while (messages.length < 200 || places.length < 50) {
        const frame = await member.next();
        if (frame.frame === 'message') messages.push(frame.message);
        else places.push((assert.equal(frame.frame, 'published'), frame.published.cursor.offset));
      }
      heard.push(messages.map(({ cursor, text }) => [cursor.offset, text]));
      await member.end();
    }
    const texts = [];
    while (texts.length < 200) texts.push(await socket.next());
    assert.deepEqual(heard[0], heard[1]);
    assert.deepEqual(heard[0].map(([, text]) => text), texts);
    assert.deepEqual(heard[0].map(([offset]) => Number(offset)), Array.from({ length: 200 }, (_, number) => number + 1));
    await socket.close();
  });

  test('history, since, and a topic that cannot be', async () => {
    for (let number = 0; number < 10; number++) await unary('Publish', { topic: 'npm-past', text: `${number}` });
    const member = new Member();
    await member.join({ topic: 'npm-past', history: 3 });
    const messages = [];
    while (messages.length < 3) messages.push((await member.expect('message')).message);
    assert.deepEqual(messages.map(({ text }) => text), ['7', '8', '9']);
    member.say({ id: 9, subscribe: { topic: 'a b' } });
    assert.equal((await member.expect('error')).id, 9);
    const later = new Member();
    await later.join({ topic: 'npm-past', since: messages[0].cursor });
    assert.deepEqual([(await later.expect('message')).message.text, (await later.expect('message')).message.text], ['8', '9']);
    await member.end();
    await later.end();
  });

  test('a queue group shares its messages', async () => {
    const members = [new Member(), new Member(), new Member()];
    for (const member of members) await member.join({ topic: 'npm-work', group: 'workers' });
    for (let number = 0; number < 60; number++) await unary('Publish', { topic: 'npm-work', text: `${number}` });
    const found = [];
    for (const member of members) {
      const own = [(await member.expect('message')).message];
      member.say({ id: 2, unsubscribe: { topic: 'npm-work' } });
      for (let frame = await member.next(); frame.frame !== 'unsubscribed'; frame = await member.next()) own.push(frame.message);
      found.push(...own.map(({ text }) => Number(text)));
      await member.end();
    }
    // What a member had been given when it left is its own, and went to nobody else.
    assert.equal(new Set(found).size, found.length, String(found));
  });

  test('bytes stay bytes, with and without gzip', async () => {
    for (const options of [{}, { 'grpc.default_compression_algorithm': grpc.compressionAlgorithms.gzip }]) {
      const member = new Member(options);
      const topic = `npm-bytes-${Object.keys(options).length}`;
      await member.join({ topic });
      const binary = Buffer.alloc(50_000, 'abc\0\xff', 'latin1');
      await unary('Publish', { topic, binary }, options);
      assert.deepEqual((await member.expect('message')).message.binary, binary);
      await member.end();
    }
  });

  test('echoes on a hundred streams of one connection', async () => {
    const client = edge(address, {}, ca);
    await Promise.all(
      Array.from({ length: 90 }, async (_, stream) => {
        const call = client.Echo();
        const got = [];
        const ended = new Promise((resolve, reject) => call.on('end', resolve).on('error', reject));
        call.on('data', ({ payload }) => got.push(payload.toString()));
        const sent = Array.from({ length: 50 }, (_, number) => `${stream} ${number}`);
        for (const text of sent) call.write({ payload: Buffer.from(text) });
        call.end();
        await inTime(ended, 'the end');
        assert.deepEqual(got, sent);
      }),
    );
  });

  test('statuses', async () => {
    await assert.rejects(unary('Publish', { topic: 'a b', text: 'x' }), { code: grpc.status.INVALID_ARGUMENT });
    const big = { topic: 't', binary: Buffer.alloc(1024 * 1024 + 1) };
    await assert.rejects(unary('Publish', big), { code: grpc.status.RESOURCE_EXHAUSTED });
    const late = edge(address, {}, ca).Connect({ deadline: Date.now() + 300 });
    late.on('error', () => {}).on('data', () => {});
    const status = await inTime(new Promise((resolve) => late.on('status', resolve)), 'status');
    assert.equal(status.code, grpc.status.DEADLINE_EXCEEDED);
  });

  test('health', async () => {
    const check = promisify((request, done) => health(address, ca).Check(request, done));
    assert.equal((await check({ service: '' })).status, 'SERVING');
    assert.equal((await check({ service: 'holdline.v1.Edge' })).status, 'SERVING');
    await assert.rejects(check({ service: 'nobody.knows' }), { code: grpc.status.NOT_FOUND });
    const watch = health(address, ca).Watch({ service: '' });
    watch.on('error', () => {});
    const [{ status }] = await once(watch, 'data');
    assert.equal(status, 'SERVING');
    watch.cancel();
  });

  test('buf curl, by reflection', async () => {
    const buf = path.join(process.env.NODE_PATH, '.bin/buf');
    const curl = (method, data) =>
      promisify(execFile)(buf, [
        'curl', '--protocol', 'grpc', ...(ca ? ['--cacert', trusted] : ['--http2-prior-knowledge']), '--data', data,
        `${ca ? 'https' : 'http'}://${address}/${method}`,
      ]).then(({ stdout }) => JSON.parse(stdout));
    const place = await curl('holdline.v1.Edge/Publish', '{"topic":"npm-buf","text":"by reflection"}');
    assert.equal(place.cursor.offset, '1');
    assert.equal((await curl('grpc.health.v1.Health/Check', '{}')).status, 'SERVING');
    assert.equal((await curl('holdline.v1.Edge/Echo', '{"payload":"aGVsbG8="}')).payload, 'aGVsbG8=');
  });

  if (secured) test('who does not trust the authority has no call', async () => {
    const call = promisify((request, done) => edge(address).Publish(request, { deadline: Date.now() + 5000 }, done));
    const stranger = new Authority().pem;
    const foreign = promisify((request, done) => edge(address, {}, stranger).Publish(request, { deadline: Date.now() + 5000 }, done));
    for (const refused of [call, foreign]) {
      const error = await refused({ topic: 'npm-refused', text: 'x' }).catch((error) => error);
      assert.ok([grpc.status.UNAVAILABLE, grpc.status.DEADLINE_EXCEEDED].includes(error.code), String(error));
    }
  });
});
