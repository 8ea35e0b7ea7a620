'use strict';
// A browser, and the chat page in a window of it as a person sees it.

const { chromium } = require('playwright-core');

const MS_MAX = 20_000;
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'];

// Debian's Chromium, without a screen and with a profile of its own that goes with it, and what else it is to be told.
const startBrowser = (...flags) => chromium.launch({ executablePath: process.env.TEST_BROWSER, args: [...FLAGS, ...flags] });

// Waits until `value` resolves to something true, and returns it; `what` says what did not come.
async function eventually(what, value) {
  const deadline = Date.now() + MS_MAX;
  for (;;) {
    const got = await value();
    if (got) return got;
    if (Date.now() > deadline) throw new Error(`${what}: not within ${MS_MAX} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

class Window {
  // options: those of a Playwright context, `clock` for a page whose clock the test can put forward, and `prepare`, which
  // gets the page before it is opened.
  static async open(browser, url, { clock = false, prepare = async () => {}, ...options } = {}) {
    const context = await browser.newContext({ locale: 'en-GB', ...options });
    context.setDefaultTimeout(MS_MAX);
    const window = new Window(await context.newPage());
    if (clock) await window.page.clock.install();
    await prepare(window.page);
    await window.page.goto(url);
    return window;
  }

  // Opens the page and joins the room of its URL.
  static async join(browser, url, name, options) {
    const window = await Window.open(browser, url, options);
    await window.join(name);
    return window;
  }

  constructor(page) {
    this.page = page;
    // Errors of the page itself; that a connection failed is none.
    this.errors = [];
    page.on('pageerror', (error) => this.errors.push(String(error)));
    page.on('console', (message) => {
      if (/Content Security Policy|Refused to/.test(message.text())) this.errors.push(message.text());
    });
  }

  async join(name) {
    await this.start(name);
    await this.state('Connected');
  }

  // Gives a name, with the keyboard alone, as all else here.
  async start(name) {
    await this.page.getByLabel('Your name').fill(name);
    await this.page.getByLabel('Your name').press('Enter');
  }

  async say(text) {
    await this.page.getByLabel('Message', { exact: true }).fill(text);
    await this.page.getByLabel('Message', { exact: true }).press('Enter');
  }

  // Waits until the state begins so, whatever the transport.
  state(text) {
    const state = this.page.locator('#state-text');
    return eventually(`the state ${text}`, async () => (await state.textContent()).startsWith(text));
  }

  transport() {
    return this.page.locator('#transport').textContent();
  }

  // Waits for a line that is just this; of a message it is what was said.
  line(text) {
    return eventually(`the line ${text}`, async () => (await this.lines()).includes(text));
  }

  // All lines: notes as they stand, and of messages what was said.
  lines() {
    return this.page.locator('#log li.note, #log .text').allTextContents();
  }

  // Waits until just these are here.
  here(...names) {
    const wanted = names.join(', ');
    const people = this.page.locator('#people li');
    return eventually(`here: ${wanted}`, async () => (await people.allTextContents()).join(', ') === wanted);
  }

  // What the window said, and what others did: [name, text].
  messages() {
    return this.page.locator('#log li:not(.note)').evaluateAll((items) =>
      items.map((item) => [item.querySelector('b').textContent, item.querySelector('.text').textContent]));
  }

  async close() {
    await this.page.context().close();
  }
}

module.exports = { Window, eventually, startBrowser };
