'use strict';
// The dashboard of the admin listener in a real browser, while clients talk.

const assert = require('node:assert/strict');
const path = require('node:path');
const { after, before, test } = require('node:test');
const { Client, startServer } = require('../clients/ws_client.js');
const { eventually, startBrowser } = require('./window.js');

let browser;
let server;
let busy;

before(async () => {
  browser = await startBrowser();
  server = await startServer();
  const members = [];
  for (let number = 0; number < 20; number += 1) members.push(await Client.open(`${server.url}/topics/%3Cb%3Enews`));
  busy = setInterval(() => members[0].ws.send('a message of some length'), 20);
});
after(async () => {
  clearInterval(busy);
  await browser.close();
  assert.equal(await server.stop(), 0, 'exit status after SIGTERM');
});

// A page of the dashboard, and all that it should not do.
async function open(options) {
  const context = await browser.newContext({ locale: 'en-GB', ...options });
  const page = await context.newPage();
  const faults = [];
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('console', (message) => faults.push(message.text()));
  page.on('request', (request) => {
    if (!request.url().startsWith(server.admin) && !request.url().startsWith('data:')) faults.push(request.url());
  });
  await page.goto(`${server.admin}/`);
  return { page, faults };
}

const text = (page, selector) => page.locator(selector).innerText();

for (const [name, options] of [
  ['wide and light', { viewport: { width: 1280, height: 900 }, colorScheme: 'light' }],
  ['narrow and dark', { viewport: { width: 390, height: 800 }, colorScheme: 'dark' }],
]) {
  test(`numbers move, nothing goes wrong, nothing comes from elsewhere: ${name}`, async () => {
    const { page, faults } = await open(options);
    await eventually('connections', async () => (await text(page, '#connections .big')) === '20');
    await eventually('deliveries', async () => parseFloat(await text(page, '#deliveries .big')) > 100);
    await eventually('a latency', async () => /p50/.test(await text(page, '#delivery .under')));
    await eventually('the topic, as text', async () => (await text(page, '#busy tbody th')) === '<b>news');
    await eventually('the crowd', async () => /<b>news\s+20/.test(await text(page, '#crowded tbody')));
    assert.match(await text(page, '#protocols'), /websocket\s+20/);
    const points = await page.locator('#deliveries polyline').first().getAttribute('points');
    await eventually('a longer line', async () =>
      (await page.locator('#deliveries polyline').first().getAttribute('points')).length > points.length);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false, 'it fits');
    await page.screenshot({
      path: path.join(process.env.TEST_REPORTS, `browser-dashboard-${options.colorScheme}.png`), fullPage: true,
    });
    assert.deepEqual(faults, []);
    await page.context().close();
  });
}

test('without a script it is a table', async () => {
  const { page, faults } = await open({ javaScriptEnabled: false });
  assert.match(await text(page, '#plain'), /connections now\s+20/);
  assert.deepEqual(faults, []);
  await page.context().close();
});
