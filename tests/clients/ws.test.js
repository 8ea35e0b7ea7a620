'use strict';
// The npm package ws as a client: echo, chat, topics.

const assert = require('node:assert/strict');
const { randomBytes } = require('node:crypto');
const { after, before, describe, test } = require('node:test');
const { once, Client, startServer } = require('./ws_client.js');

let server;
before(async () => {
  server = await startServer();
});
after(async () => {
  assert.equal(await server.stop(), 0, 'exit status after SIGTERM');
});

const connect = (path, options) => Client.open(server.url + path, options);

for (const perMessageDeflate of [true, false]) {
  describe(`echo ${perMessageDeflate ? 'with' : 'without'} permessage-deflate`, () => {
    test('the extension is what was asked for', async () => {
      const client = await connect('/echo', { perMessageDeflate });
      assert.equal(client.ws.extensions.includes('permessage-deflate'), perMessageDeflate);
      await client.close();
    });

    test('text and binary of many sizes', async () => {
      const client = await connect('/echo', { perMessageDeflate });
      for (const size of [0, 1, 125, 126, 1024, 65535, 65536, 200 * 1024]) {
        const text = 'abcdefgh'.repeat(size / 8 + 1).slice(0, size);
        client.ws.send(text);
        assert.equal(await client.next(), text);
        const data = randomBytes(size);
        client.ws.send(data);
        assert.deepEqual(await client.next(), data);
      }
      await client.close();
    });

    test('fragmented', async () => {
      const client = await connect('/echo', { perMessageDeflate });
      client.ws.send('frag', { fin: false });
      client.ws.send('', { fin: false });
      client.ws.send('mented grüße', { fin: true });
      assert.equal(await client.next(), 'fragmented grüße');
      client.ws.send(Buffer.from([1]), { binary: true, fin: false });
      client.ws.send(Buffer.from([2, 3]), { binary: true, fin: true });
      assert.deepEqual(await client.next(), Buffer.from([1, 2, 3]));
      await client.close();
    });

    test('many in flight keep their order', async () => {
      const client = await connect('/echo', { perMessageDeflate });
      const texts = Array.from({ length: 2000 }, (_, number) => `message ${number}`);
      for (const text of texts) client.ws.send(text);
      for (const text of texts) assert.equal(await client.next(), text);
      await client.close();
    });
  });
}

test('a ping is answered with its data', async () => {
  const client = await connect('/echo');
  for (const data of ['', 'are you there', 'x'.repeat(125)]) {
    client.ws.ping(data);
    const [pong] = await once(client.ws, 'pong');
    assert.equal(pong.toString(), data);
  }
  await client.close();
});

test('close codes are returned', async () => {
  for (const code of [1000, 1001, 1003, 3000, 4999]) {
    const client = await connect('/echo');
    assert.equal(await client.close(code, 'bye'), code);
  }
});

test('a subprotocol is one of those offered, or none', async () => {
  const client = await connect('/echo', { protocols: ['soup', 'chat'] }).catch((error) => {
    // ws refuses a server that answers an offer with no choice; then without an offer all must be well.
    assert.match(error.message, /no subprotocol/);
    return connect('/echo');
  });
  assert.ok(['', 'soup', 'chat'].includes(client.ws.protocol));
  await client.close();
});

test('a foreign origin is refused', async () => {
  await assert.rejects(connect('/echo', { origin: 'http://evil.example' }), /403/);
});

test('what is not there is not found', async () => {
  await assert.rejects(connect('/nothing/here'), /404/);
});

test('a message over the limit closes with 1009', async () => {
  const client = await connect('/echo');
  client.ws.on('error', () => {});
  client.ws.send(Buffer.alloc(1024 * 1024 + 1));
  assert.equal(await client.closed, 1009);
});

test('chat: join, say, leave', async () => {
  const ann = await connect('/chat/npm?name=ann');
  assert.equal(await ann.next(), 'ann joined the chat');
  const bob = await connect('/chat/npm?name=bob');
  for (const client of [ann, bob]) assert.equal(await client.next(), 'bob joined the chat');
  ann.ws.send('hi');
  for (const client of [ann, bob]) assert.equal(await client.next(), 'ann: hi');
  await bob.close();
  assert.equal(await ann.next(), 'bob left the chat');
  await ann.close();
});

test('topics: text stays text, binary binary, echo=0 hides my own', async () => {
  const one = await connect('/topics/npm');
  const two = await connect('/topics/npm?echo=0');
  await two.settled();
  one.ws.send('text');
  for (const client of [one, two]) assert.equal(await client.next(), 'text');
  one.ws.send(Buffer.from([0, 255]));
  for (const client of [one, two]) assert.deepEqual(await client.next(), Buffer.from([0, 255]));
  two.ws.send('not to myself');
  assert.equal(await one.next(), 'not to myself');
  one.ws.send('last');
  assert.equal(await two.next(), 'last');
  await one.close();
  await two.close();
});

test('a hundred clients at once', async () => {
  await Promise.all(
    Array.from({ length: 100 }, async (_, number) => {
      const client = await connect('/echo');
      client.ws.send(`client ${number}`);
      assert.equal(await client.next(), `client ${number}`);
      await client.close();
    }),
  );
});
