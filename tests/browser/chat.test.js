'use strict';
// The built-in page in a real browser: two windows talk, and what happens to them when the network or the server does.

const assert = require('node:assert/strict');
const path = require('node:path');
const { after, afterEach, before, beforeEach, describe, test } = require('node:test');
const { startServer } = require('../clients/ws_client.js');
const { Proxy } = require('./proxy.js');
const { Window, eventually, startBrowser } = require('./window.js');

const REPORTS = process.env.TEST_REPORTS;
const BACKEND = process.env.TEST_BACKEND;

// Each server's end at the end of the process is a listener.
process.setMaxListeners(100);

let browser;
let server;
let proxy;
let windows;
let rooms = 0;
let room;

before(async () => {
  browser = await startBrowser();
});
after(() => browser.close());
beforeEach(async () => {
  server = await startServer();
  proxy = await Proxy.start(portOf(server));
  windows = [];
  room = `room-${rooms += 1}`;
});
afterEach(async () => {
  for (const window of windows) await window.close();
  await proxy.stop();
  assert.equal(await server.stop(), 0, 'exit status after SIGTERM');
  for (const window of windows) assert.deepEqual(window.errors, []);
});

const portOf = (started) => Number(new URL(started.url).port);

async function join(name, { query = '', direct = false, ...options } = {}) {
  const base = direct ? server.url.replace(/^ws/, 'http') : proxy.url;
  const window = await Window.join(browser, `${base}/${query}#${room}`, name, options);
  windows.push(window);
  return window;
}

// Says it without a page, straight to the server.
async function post(name, text) {
  const url = `${server.url.replace(/^ws/, 'http')}/chat/${room}?name=${name}`;
  const answer = await fetch(url, { method: 'POST', headers: { 'Content-Type': 'text/plain' }, body: text });
  assert.equal(answer.status, 200);
}

function picture(window, name) {
  return window.page.screenshot({ path: path.join(REPORTS, `browser-${BACKEND}-${name}.png`) });
}

const isWide = (window) => window.page.evaluate(() => document.documentElement.scrollWidth > innerWidth);

// What was said, as a window shows it.
const heard = async (window) => (await window.messages()).map(([, text]) => text);

for (const kind of ['WebSocket', 'SSE']) {
  const query = `?transport=${kind.toLowerCase()}`;
  describe(`over ${kind}`, () => {
    test('two windows join, talk both ways, and see who leaves', async () => {
      const ann = await join('Ann', { query });
      const bob = await join('Bob', { query });
      for (const window of [ann, bob]) {
        await window.line('Bob joined the chat');
        assert.equal(await window.transport(), kind);
      }
      await ann.here('Ann (you)', 'Bob');
      await bob.here('Bob (you)', 'Ann');
      await ann.say('hello, Bob');
      await bob.line('hello, Bob');
      await bob.say('hello, Ann: <b>grüße</b> &amp;');
      await ann.line('hello, Ann: <b>grüße</b> &amp;');
      assert.deepEqual(await ann.messages(), [['You', 'hello, Bob'], ['Bob', 'hello, Ann: <b>grüße</b> &amp;']]);
      assert.deepEqual(await bob.messages(), [['Ann', 'hello, Bob'], ['You', 'hello, Ann: <b>grüße</b> &amp;']]);
      await bob.page.getByRole('button', { name: 'Leave' }).click();
      await ann.line('Bob left the chat');
      await ann.here('Ann (you)');
    });

    test('who comes late sees what was said', async () => {
      const ann = await join('Ann', { query });
      await ann.say('first');
      await ann.line('first');
      const bob = await join('Bob', { query });
      assert.deepEqual(await bob.messages(), [['Ann', 'first']]);
      await bob.here('Bob (you)', 'Ann');
      // Her own earlier stay is in what she gets, and is no later news.
      await ann.page.getByRole('button', { name: 'Leave' }).click();
      await bob.line('Ann left the chat');
      await ann.page.keyboard.press('Enter');
      await ann.state('Connected');
      await ann.here('Ann (you)', 'Bob');
      await bob.here('Bob (you)', 'Ann');
      assert.deepEqual(await ann.messages(), [['You', 'first']]);
    });

    test('the network goes away and comes back: all is caught up, once', async () => {
      const ann = await join('Ann', { query });
      const bob = await join('Bob', { query, direct: true });
      await ann.line('Bob joined the chat');
      await proxy.stop();
      await ann.state('Reconnecting');
      await bob.line('Ann left the chat');
      for (const text of ['one', 'two', 'three']) await bob.say(text);
      await bob.line('three');
      await proxy.start();
      await ann.line('Resumed, 3 messages caught up');
      await ann.state('Connected');
      await bob.say('four');
      await ann.line('four');
      await ann.say('five');
      await bob.line('five');
      await ann.line('five');
      const before = ['Ann joined the chat', 'Bob joined the chat'];
      const resumed = ['Resumed, 3 messages caught up', 'one', 'two', 'three', 'four', 'five'];
      assert.deepEqual(await ann.lines(), [...before, ...resumed]);
      await ann.here('Ann (you)', 'Bob');
      await picture(ann, `resumed-${kind}`);
    });

    test('connections are cut while others talk: every message comes once and in order', async () => {
      const ann = await join('Ann', { query });
      const texts = Array.from({ length: 200 }, (_, number) => `message ${number}`);
      const resumed = async () => (await ann.lines()).filter((line) => line.startsWith('Resumed')).length;
      let cuts = 0;
      for (const [number, text] of texts.entries()) {
        if (number % 50 === 25) {
          // A page that has not noticed yet says that it is connected.
          await eventually(`${cuts} times resumed`, async () => (await resumed()) === cuts);
          await ann.state('Connected');
          proxy.cut();
          cuts += 1;
        }
        await post('Bob', text);
      }
      await ann.line(texts.at(-1));
      await eventually('four times resumed', async () => (await resumed()) === cuts);
      assert.deepEqual(await heard(ann), texts);
    });

    test('the server starts anew: that something may be missing is said', async () => {
      const ann = await join('Ann', { query });
      await ann.say('before');
      await ann.line('before');
      assert.equal(await server.stop(), 0, 'exit status after SIGTERM');
      server = await startServer();
      proxy.target = portOf(server);
      await ann.line('Some messages are missing here');
      await ann.state('Connected');
      await ann.say('after');
      await ann.line('after');
      assert.deepEqual(await heard(ann), ['before', 'after']);
      await ann.here('Ann (you)');
      await picture(ann, `reset-${kind}`);
    });
  });
}

test('a message that was lost on its way comes back to its writer', async () => {
  const ann = await join('Ann');
  proxy.deaf = true;
  await ann.say('into the void');
  proxy.cut();
  proxy.deaf = false;
  await ann.line('Not delivered: into the void');
  assert.equal(await ann.page.getByLabel('Message', { exact: true }).inputValue(), 'into the void');
  await ann.page.getByLabel('Message', { exact: true }).press('Enter');
  await ann.line('into the void');
  assert.deepEqual(await ann.messages(), [['You', 'into the void']]);
});

test('where no WebSocket gets through events do, until one does', async () => {
  proxy.blocksWebSocket = true;
  const ann = await join('Ann', { clock: true });
  assert.equal(await ann.transport(), 'SSE fallback');
  const bob = await join('Bob', { direct: true });
  assert.equal(await bob.transport(), 'WebSocket');
  await ann.say('over events');
  await bob.line('over events');
  await bob.say('over a WebSocket');
  await ann.line('over a WebSocket');
  proxy.blocksWebSocket = false;
  await ann.page.clock.fastForward(31_000);
  await eventually('a WebSocket', async () => (await ann.transport()) === 'WebSocket');
  await ann.state('Connected');
  await bob.say('welcome back');
  await ann.line('welcome back');
  assert.deepEqual(await heard(ann), ['over events', 'over a WebSocket', 'welcome back']);
});

test('the browser itself resumes events by the last id', async () => {
  const ann = await join('Ann', { query: '?transport=sse' });
  await ann.say('hello');
  await ann.line('hello');
  proxy.cut();
  const namesLastId = (head) => /^last-event-id: \d+:\d+$/im.test(head);
  await eventually('a request with the last id', () => proxy.heads.some(namesLastId));
  await ann.line('Resumed, nothing missed');
});

test('a server that is away is no blocked WebSocket', async () => {
  const ann = await join('Ann');
  let attempts = 0;
  ann.page.on('websocket', () => { attempts += 1; });
  await proxy.stop();
  // After two it asks whether anything passes, and must not change over.
  await eventually('a third attempt', () => attempts >= 3);
  await proxy.start();
  await ann.line('Resumed, nothing missed');
  assert.equal(await ann.transport(), 'WebSocket');
});

test('it waits as long as the server asks for', async () => {
  const ann = await Window.open(browser, `${proxy.url}/#${room}`);
  windows.push(ann);
  let attempts = 0;
  await ann.page.routeWebSocket(/\/chat\//, (socket) => {
    attempts += 1;
    socket.send(JSON.stringify({ topic: room, epoch: 1, offset: 1, time: 1, text: 'Ann joined the chat' }));
    socket.close({ code: 1001, reason: 'retry after 7000 ms' });
  });
  await ann.page.reload();
  await ann.start('Ann');
  await ann.state('Reconnecting in 7 s');
  assert.equal(attempts, 1);
});

test('a crowd of lines: the oldest go, and who reads above is not moved', async () => {
  const ann = await join('Ann');
  for (let number = 0; number < 300; number += 1) await post('Bob', `early ${number}`);
  await ann.line('early 299');
  await ann.page.locator('#log').evaluate((log) => { log.scrollTop = 100; });
  await post('Bob', 'unseen');
  const newest = ann.page.getByRole('button', { name: 'New messages' });
  await newest.click();
  await newest.waitFor({ state: 'hidden' });
  for (let number = 0; number < 300; number += 1) await post('Bob', `late ${number}`);
  await ann.line('late 299');
  assert.equal((await ann.lines()).length, 500);
  await newest.waitFor({ state: 'hidden' });
});

test('a name and a room are remembered, and the room is in the URL', async () => {
  const ann = await join('Ann Lee');
  await ann.page.reload();
  assert.equal(await ann.page.getByLabel('Your name').inputValue(), 'Ann Lee');
  assert.equal(await ann.page.getByLabel('Room').inputValue(), room);
  await ann.page.keyboard.press('Enter');
  await ann.state('Connected');
  await ann.page.evaluate(() => { location.hash = '#elsewhere'; });
  await eventually('the other room', async () => (await ann.page.title()).startsWith('elsewhere'));
  await ann.state('Connected');
  await ann.here('Ann Lee (you)');
});

test('it reads well: on a desk, on a phone, in the dark', async () => {
  const desk = await join('Ann', { viewport: { width: 1200, height: 760 } });
  const hand = { isMobile: true, hasTouch: true, deviceScaleFactor: 2 };
  const phone = await join('Bob', { viewport: { width: 360, height: 640 }, ...hand });
  const dark = await join('Zoë', { viewport: { width: 900, height: 640 }, colorScheme: 'dark' });
  await desk.say('Does anybody know when the train leaves?');
  await desk.line('Does anybody know when the train leaves?');
  const answer = 'At 18:04 from platform 7. I have looked it up twice: last time I was wrong and we stood there for an hour.';
  await phone.say(answer);
  await dark.line(answer);
  await dark.say('Thank you! ' + 'https://example.com/' + 'long/'.repeat(30));
  await desk.say('See you there');
  for (const [name, window] of Object.entries({ desk, phone, dark })) {
    await window.line('See you there');
    assert.equal(await isWide(window), false, name);
    await picture(window, name);
  }
  const welcome = await Window.open(browser, proxy.url, { viewport: { width: 360, height: 640 } });
  windows.push(welcome);
  assert.equal(await isWide(welcome), false);
  await picture(welcome, 'welcome');
});
