'use strict';
// The network between a page and its server: a TCP proxy whose connections a test cuts.

const { once } = require('node:events');
const net = require('node:net');

const HEAD_BYTES_MAX = 64 * 1024;
const REFUSAL = 'HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n';

class Proxy {
  static async start(target) {
    const proxy = new Proxy(target);
    await proxy.start();
    return proxy;
  }

  // target: the port of the server, which a test may change.
  constructor(target) {
    this.target = target;
    this.port = 0;
    // What a connection asks for first, as far as its head.
    this.heads = [];
    // Requests for a WebSocket get 403.
    this.blocksWebSocket = false;
    // What a page sends is lost, though its connection seems well.
    this.deaf = false;
    this.sockets = new Set();
    this.listener = null;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  // Listens, after a stop on the same port again.
  async start() {
    this.listener = net.createServer((socket) => this.accept(socket));
    this.listener.listen(this.port, '127.0.0.1');
    await once(this.listener, 'listening');
    this.port = this.listener.address().port;
  }

  // Connections are cut and new ones refused.
  async stop() {
    const closed = once(this.listener, 'close');
    this.listener.close();
    this.cut();
    await closed;
  }

  // Every connection is reset, on both sides.
  cut() {
    for (const socket of this.sockets) socket.resetAndDestroy();
  }

  accept(page) {
    this.hold(page);
    let head = '';
    const read = (bytes) => {
      head += bytes.toString('latin1');
      if (head.includes('\r\n\r\n')) {
        page.off('data', read);
        this.forward(page, head);
      } else if (head.length > HEAD_BYTES_MAX) {
        page.destroy();
      }
    };
    page.on('data', read);
  }

  forward(page, head) {
    this.heads.push(head.slice(0, head.indexOf('\r\n\r\n')));
    if (this.blocksWebSocket && /^upgrade: websocket/im.test(head)) {
      page.end(REFUSAL);
      return;
    }
    const server = net.connect(this.target, '127.0.0.1');
    this.hold(server);
    server.write(head, 'latin1');
    page.on('data', (bytes) => this.deaf || server.write(bytes));
    server.on('data', (bytes) => page.write(bytes));
    page.on('close', () => server.destroy());
    server.on('close', () => page.destroySoon());
  }

  hold(socket) {
    this.sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => this.sockets.delete(socket));
  }
}

module.exports = { Proxy };
