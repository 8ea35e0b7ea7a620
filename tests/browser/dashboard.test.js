'use strict';
// The dashboard of the admin listener in a real browser, while clients talk, and two of them do not read.
//
// TEST_PICTURE_SECONDS=60 has it draw so long before a picture is taken: docs/dashboard.png is such a picture.

const assert = require('node:assert/strict');
const { createHash } = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { startServer } = require('../clients/ws_client.js');
const { Crowd } = require('./crowd.js');
const { eventually, startBrowser } = require('./window.js');

// Where those who do not read miss messages instead of being ended, and are not ended for standing still either.
const CONFIG = `
limits.queue_stall_timeout = "10m"
[topics."video/*"]
slow_consumer = "drop_oldest"
`;
const KEY = 'an-operators-key';
const MEMBERS = 300;

let browser;
let folder;
let server;
let crowd;

before(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'holdline-'));
  browser = await startBrowser();
  server = await startServer({ more: ['--config', file('holdline.toml', CONFIG)] });
  crowd = await Crowd.gather(server.url);
});
after(async () => {
  crowd?.leave();
  await browser.close();
  assert.equal(await server.stop(), 0, 'exit status after SIGTERM');
  fs.rmSync(folder, { recursive: true });
});

function file(name, text) {
  fs.writeFileSync(path.join(folder, name), text);
  return path.join(folder, name);
}

// A page of the dashboard of a server, and all that it should not do.
async function open(at, options) {
  const context = await browser.newContext({ locale: 'en-GB', ...options });
  const page = await context.newPage();
  const faults = [];
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('console', (message) => faults.push(message.text()));
  page.on('request', (request) => {
    if (!request.url().startsWith(at) && !request.url().startsWith('data:')) faults.push(request.url());
  });
  const answer = await page.goto(`${at}/`);
  return { page, faults, status: answer.status() };
}

const text = (page, selector) => page.locator(selector).innerText();
const number = async (page, selector) => parseFloat((await text(page, selector)).replaceAll('\u202f', ''));

for (const [name, options] of [
  ['wide-light', { viewport: { width: 1280, height: 900 }, colorScheme: 'light' }],
  ['wide-dark', { viewport: { width: 1280, height: 900 }, colorScheme: 'dark' }],
  ['narrow-dark', { viewport: { width: 390, height: 800 }, colorScheme: 'dark' }],
]) {
  test(`numbers move, nothing goes wrong, nothing comes from elsewhere: ${name}`, async () => {
    const { page, faults } = await open(server.admin, options);
    await eventually('connections', async () => (await number(page, '#connections .big')) > MEMBERS);
    await eventually('deliveries', async () => (await number(page, '#deliveries .big')) > 0);
    await eventually('a latency', async () => /p50/.test(await text(page, '#delivery .under')));
    await eventually('the topic, as text', async () => /<b>bold/.test(await text(page, '#busy tbody')));
    await eventually('the crowd', async () => /market\/btc\s+180/.test(await text(page, '#crowded tbody')));
    assert.match(await text(page, '#protocols'), /sse\s+30/);
    const points = await page.locator('#deliveries polyline').first().getAttribute('points');
    await eventually('a longer line', async () =>
      (await page.locator('#deliveries polyline').first().getAttribute('points')).length > points.length);

    const rows = () => page.locator('#slow tbody tr').allInnerTexts();
    const row = async (addresses, state) =>
      (await rows()).some((line) => state.test(line) && addresses.some((address) => line.includes(address)));
    await eventually('who reads too slowly', () => row([crowd.behind], /KiB\s+waits/));
    await eventually('who was ended for it', () => row(crowd.ended, /ended \d+ s ago/));
    await eventually('why', async () => /slow_consumer/.test(await text(page, '#closed tbody')));

    const { width } = await page.locator('#deliveries svg').boundingBox();
    await page.locator('#deliveries svg').hover({ position: { x: width - 2, y: 5 } });
    await eventually('a value of a while ago', async () => /ago/.test(await text(page, '#deliveries .scale')));
    await page.mouse.move(0, 0);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false, 'it fits');
    await page.waitForTimeout(1000 * Number(process.env.TEST_PICTURE_SECONDS ?? 0));
    await page.screenshot({ path: path.join(process.env.TEST_REPORTS, `browser-dashboard-${name}.png`), fullPage: true });
    assert.deepEqual(faults, []);
    await page.context().close();
  });
}

test('without a script it is a table', async () => {
  const { page, faults } = await open(server.admin, { javaScriptEnabled: false });
  assert.match(await text(page, '#plain'), /connections now\s+3\d\d/);
  assert.deepEqual(faults, []);
  await page.context().close();
});

test('where there are keys the browser asks for one, and the page works with it', async () => {
  const sha256 = createHash('sha256').update(KEY).digest('hex');
  const keys = file('keys.toml', `[[key]]\nname = "operator"\nsha256 = "${sha256}"\nadmin = true\n`);
  const guarded = await startServer({ more: ['--config', file('guarded.toml', `auth.api_keys = "${keys}"\n`)] });
  try {
    await assert.rejects(open(guarded.admin), /ERR_INVALID_AUTH_CREDENTIALS/, 'nobody answers the question');
    const { page, faults, status } = await open(guarded.admin, { httpCredentials: { username: 'me', password: KEY } });
    assert.equal(status, 200);
    await eventually('numbers', async () => (await text(page, '#connections .big')) === '0');
    assert.equal(await page.locator('#stale').isVisible(), false);
    assert.deepEqual(faults, []);
    await page.context().close();
  } finally {
    assert.equal(await guarded.stop(), 0);
  }
});
