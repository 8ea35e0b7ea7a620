'use strict';
// A promising face for ws, and a server of a test's own.

const { spawn } = require('node:child_process');
const events = require('node:events');
const { createInterface } = require('node:readline');
const WebSocket = require('ws');

const MS_MAX = 10_000;

// `promise`, or an error when it takes too long.
function inTime(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ${MS_MAX} ms`)), MS_MAX);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const once = (emitter, name) => inTime(events.once(emitter, name), name);

class Client {
  static async open(url, { protocols = [], ...options } = {}) {
    const client = new Client(new WebSocket(url, protocols, options));
    await once(client.ws, 'open');
    return client;
  }

  constructor(ws) {
    this.ws = ws;
    this.inbox = [];
    this.waiting = [];
    this.closed = new Promise((resolve) => ws.on('close', resolve));
    ws.on('message', (data, isBinary) => {
      const message = isBinary ? data : data.toString();
      const taker = this.waiting.shift();
      if (taker) taker(message);
      else this.inbox.push(message);
    });
  }

  // The next message: a string, or a Buffer for binary.
  next() {
    if (this.inbox.length > 0) return Promise.resolve(this.inbox.shift());
    return inTime(new Promise((resolve) => this.waiting.push(resolve)), 'message');
  }

  // After a ping's answer the server has done all that opening asked for.
  async settled() {
    this.ws.ping();
    await once(this.ws, 'pong');
  }

  // Closes, and resolves to the code that the server answered with.
  close(code = 1000, reason = '') {
    this.ws.close(code, reason);
    return inTime(this.closed, 'close');
  }
}

// Runs `holdline serve` until it is ready: { url, admin, stop() -> exit status }. Its listener speaks TLS with a
// certificate ({ certificate, key }, files of it and of its key); more settings are HOLDLINE_... in its environment, or `more`
// flags.
async function startServer({ certificate, settings = {}, more = [] } = {}) {
  const backend = process.env.TEST_BACKEND ?? 'epoll';
  const flags = ['--backend', backend, '--shards', '2', '--admin', '127.0.0.1:0', '--drain', '1s', ...more];
  if (certificate) flags.push('--tls-certificate', certificate.certificate, '--tls-key', certificate.key);
  flags.push('--listen', certificate ? 'https://127.0.0.1:0' : 'http://127.0.0.1:0');
  const own = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('HOLDLINE_')));
  const child = spawn(process.env.TEST_PROGRAM, ['serve', ...flags], {
    env: { ...own, ...settings },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  process.on('exit', () => child.kill('SIGKILL'));
  const exited = new Promise((resolve) => child.on('exit', (status, signal) => resolve(status ?? signal)));
  let url;
  let admin;
  const ready = new Promise((resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (/^listening on https?:/.test(line)) url ??= line.slice('listening on '.length).replace(/^http/, 'ws').replace(/\/$/, '');
      // The admin listener is told last.
      if (line.startsWith('listening on http://')) admin = line.slice('listening on '.length).replace(/\/$/, '');
      if (line === 'ready') resolve();
    });
    exited.then((status) => reject(new Error(`the server ended at start: ${status}`)));
  });
  await inTime(ready, 'ready');
  const stop = () => {
    child.kill('SIGTERM');
    return inTime(exited, 'exit');
  };
  return { url, admin, stop };
}

module.exports = { Client, inTime, once, startServer };
