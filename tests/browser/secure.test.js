'use strict';
// The built-in page over TLS, and with a token, in a real browser.

const assert = require('node:assert/strict');
const { createHmac } = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');
const { after, afterEach, before, describe, test } = require('node:test');
const { Authority, pin } = require('../clients/authority.js');
const { startServer } = require('../clients/ws_client.js');
const { Window, eventually, startBrowser } = require('./window.js');

const SECRET = Buffer.from('0123456789abcdef0123456789abcdef');

const authority = new Authority();
const certificate = authority.issue('edge');
// There is no flag that adds an authority to those that Chromium trusts. This one has it trust a server's public key instead:
// everything else about TLS is as ever, and the page is a secure context.
const TRUST = `--ignore-certificate-errors-spki-list=${pin(certificate.certificate)}`;

let browser;
let windows = [];
before(async () => {
  browser = await startBrowser(TRUST);
});
after(() => browser.close());
afterEach(async () => {
  for (const window of windows) await window.close();
  for (const window of windows.splice(0)) assert.deepEqual(window.errors, []);
});

// A server for the tests of one group; { base } is its page.
function serve(settings) {
  const served = {};
  before(async () => {
    Object.assign(served, await startServer({ certificate, settings: settings?.() }));
    served.base = served.url.replace(/^wss:\/\/127.0.0.1/, 'https://localhost');
  });
  after(async () => assert.equal(await served.stop(), 0, 'exit status after SIGTERM'));
  return served;
}

async function open(url, options) {
  const window = await Window.open(browser, url, options);
  windows.push(window);
  return window;
}

async function join(url, name, options) {
  const window = await open(url, options);
  await window.join(name);
  return window;
}

// What answers the handshakes of a page's WebSockets: 101 over HTTP/1.1, 200 over HTTP/2 (RFC 8441).
async function handshakes(page) {
  const statuses = [];
  const session = await page.context().newCDPSession(page);
  await session.send('Network.enable');
  session.on('Network.webSocketHandshakeResponseReceived', ({ response }) => statuses.push(response.status));
  return statuses;
}

async function talk(ann, bob) {
  await ann.line('Bob joined the chat');
  await ann.say('hello, Bob');
  await bob.line('hello, Bob');
  await bob.say('hello, Ann: grüße');
  await ann.line('hello, Ann: grüße');
  const said = [['You', 'hello, Bob'], ['Bob', 'hello, Ann: grüße']];
  assert.deepEqual(await ann.messages(), said);
  await bob.here('Bob (you)', 'Ann');
}

describe('over https', () => {
  const server = serve();

  test('the page comes over HTTP/2, in a secure context', async () => {
    const window = await open(`${server.base}/#secure`);
    const [protocols, isSecure] = await window.page.evaluate(() => {
      const of = (kind) => performance.getEntriesByType(kind).map((entry) => entry.nextHopProtocol);
      return [[...of('navigation'), ...of('resource')], isSecureContext];
    });
    assert.deepEqual([new Set(protocols), protocols.length >= 3, isSecure], [new Set(['h2']), true, true]);
  });

  test('two windows talk over wss, on streams of HTTP/2', async () => {
    let statuses;
    const prepare = async (page) => { statuses = await handshakes(page); };
    const ann = await join(`${server.base}/#wss`, 'Ann', { prepare });
    const bob = await join(`${server.base}/#wss`, 'Bob');
    await talk(ann, bob);
    for (const window of [ann, bob]) assert.equal(await window.transport(), 'WebSocket');
    assert.deepEqual(statuses, [200]);
    await ann.page.screenshot({ path: path.join(process.env.TEST_REPORTS, `browser-${process.env.TEST_BACKEND}-wss.png`) });
  });

  test('two windows talk over events, and one hears by a WebSocket', async () => {
    const ann = await join(`${server.base}/?transport=sse#events`, 'Ann');
    const bob = await join(`${server.base}/?transport=websocket#events`, 'Bob');
    await talk(ann, bob);
    assert.deepEqual([await ann.transport(), await bob.transport()], ['SSE', 'WebSocket']);
  });

  test('where no WebSocket gets through events do', async () => {
    const prepare = (page) => page.addInitScript(() => {
      const Real = WebSocket;
      // It asks for what is not there.
      globalThis.WebSocket = class extends Real {
        constructor(url) {
          super(url.replace('/chat/', '/blocked/'));
        }
      };
    });
    const ann = await join(`${server.base}/#fallback`, 'Ann', { prepare });
    const bob = await join(`${server.base}/#fallback`, 'Bob');
    assert.deepEqual([await ann.transport(), await bob.transport()], ['SSE fallback', 'WebSocket']);
    await talk(ann, bob);
  });
});

test('a browser that was told nothing refuses the certificate', async () => {
  const server = await startServer({ certificate });
  const wary = await startBrowser();
  const page = await wary.newPage();
  await assert.rejects(page.goto(server.url.replace(/^wss:\/\/127.0.0.1/, 'https://localhost')), /ERR_CERT_AUTHORITY_INVALID/);
  await wary.close();
  assert.equal(await server.stop(), 0);
});

// A JSON Web Token (RFC 7519) of these permissions, signed with the secret.
function token(room, seconds = 600, secret = SECRET) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const topics = [`chat/${room}`];
  const exp = Math.floor(Date.now() / 1000) + seconds;
  const text = `${part({ alg: 'HS256', kid: 'one' })}.${part({ sub: 'ann', exp, holdline: { subscribe: topics, publish: topics } })}`;
  return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
}

describe('with a token in its URL', () => {
  const server = serve(() => {
    const file = path.join(authority.folder, 'keys.json');
    const key = { kty: 'oct', kid: 'one', alg: 'HS256', use: 'sig', k: SECRET.toString('base64url') };
    fs.writeFileSync(file, JSON.stringify({ keys: [key] }));
    return { HOLDLINE_AUTH_JWKS: file, HOLDLINE_AUTH_LEEWAY: '0s', HOLDLINE_AUTH_RENEW_GRACE: '0s' };
  });
  const page = (room, text, query = '') => `${server.base}/?token=${encodeURIComponent(text)}${query}#${room}`;

  test('the page talks over a WebSocket and over events', async () => {
    const text = token('guarded');
    const ann = await join(page('guarded', text), 'Ann');
    const bob = await join(page('guarded', text, '&transport=sse'), 'Bob');
    await talk(ann, bob);
    assert.deepEqual([await ann.transport(), await bob.transport()], ['WebSocket', 'SSE']);
    // It stays where it is, so that a page that is loaded again is let in again.
    await ann.page.reload();
    await ann.page.keyboard.press('Enter');
    await ann.state('Connected');
  });

  test('who is not let in is told so', async () => {
    const refused = async ([url, why]) => {
      const window = await open(url);
      await window.start('Eve');
      await window.state('Not let in: ');
      assert.match(await window.page.locator('#state-text').textContent(), why);
      assert.equal(await window.page.getByLabel('Your name').isVisible(), true);
    };
    await Promise.all([
      [`${server.base}/#guarded`, /token/],
      [page('guarded', token('guarded', 600, Buffer.alloc(32))), /./],
      [page('guarded', token('another')), /chat\/guarded/],
      [page('guarded', token('another'), '&transport=sse'), /chat\/guarded/],
      [page('guarded', token('another'), '&transport=websocket'), /chat\/guarded/],
    ].map(refused));
  });

  test('a token that ends while the page is open ends its stay', async () => {
    const ann = await join(page('brief', token('brief', 4)), 'Ann');
    await ann.state('Not let in: ');
  });
});
