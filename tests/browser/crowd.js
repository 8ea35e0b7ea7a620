'use strict';
// Clients of a server as it has them in the evening: publishers, hundreds of subscribers, and two who do not read.

const { randomBytes } = require('node:crypto');
const http = require('node:http');
const { Client } = require('../clients/ws_client.js');

// Kernels take some of these for a socket that nobody reads, before the server's own queue grows. Noise, since what can be
// compressed would be.
const FRAME = randomBytes(192 * 1024).toString('base64');

class Crowd {
  // Connects all of them to `url`, ws://HOST:PORT, and lets them talk until `leave`.
  static async gather(url) {
    const crowd = new Crowd(url);
    await crowd.#join('market/btc', 180);
    await crowd.#join('market/eth', 60);
    await crowd.#join('market/%3Cb%3Ebold', 30);
    await Promise.all(Array.from({ length: 30 }, () => crowd.#follow('news')));
    crowd.behind = await crowd.#sleeper('video/behind');
    await crowd.#comeAgain();
    crowd.#every(100, () => crowd.clients[0].ws.send('{"bid":97112.5,"ask":97113.0}'));
    crowd.#every(250, () => crowd.clients[180].ws.send('{"bid":3311.75,"ask":3311.80}'));
    crowd.#every(900, () => crowd.clients[240].ws.send('a message of some length'));
    crowd.#every(500, () => crowd.#post('news', 'what has happened'));
    for (const sensor of [1, 2, 3]) crowd.#every(150 * sensor, () => crowd.#post(`sensor/${sensor}`, '21.5'));
    crowd.#every(150, () => crowd.#post('video/behind', FRAME));
    crowd.#every(150, () => crowd.#post('camera', FRAME));
    crowd.#every(8000, () => crowd.#comeAgain());
    crowd.#every(300, () => crowd.#passBy());
    return crowd;
  }

  constructor(url) {
    this.url = url;
    this.clients = [];
    this.requests = [];
    this.timers = [];
    // The connections that were ended for it, by their addresses.
    this.ended = [];
    this.agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
  }

  // Members of a topic.
  async #join(topic, count) {
    for (let number = 0; number < count; number += 1) this.clients.push(await Client.open(`${this.url}/topics/${topic}`));
  }

  // A stream of events.
  #follow(topic) {
    return new Promise((resolve, reject) => {
      const options = { headers: { accept: 'text/event-stream' }, agent: false };
      const request = http.get(`${this.url.replace(/^ws/, 'http')}/topics/${topic}`, options, (answer) => {
        answer.on('error', () => {}).resume();
        resolve();
      });
      request.on('error', reject);
      this.requests.push(request);
    });
  }

  // Somebody who reads no more. Resolves to his address.
  async #sleeper(topic) {
    const client = await Client.open(`${this.url}/topics/${topic}`);
    client.ws.on('error', () => {});
    client.ws.pause();
    this.clients.push(client);
    const { localAddress, localPort } = client.ws._socket;
    return `${localAddress}:${localPort}`;
  }

  // One whose topic has no patience: it is ended, and comes again.
  async #comeAgain() {
    if (this.timers === null) return;
    this.ended.push(await this.#sleeper('camera'));
  }

  // One who comes, says something, and goes.
  async #passBy() {
    try {
      const client = await Client.open(`${this.url}/echo`);
      client.ws.send('hello');
      await client.next();
      await client.close();
    } catch {
      // The server has ended meanwhile.
    }
  }

  #post(topic, body) {
    const options = { method: 'POST', agent: this.agent, headers: { 'content-type': 'text/plain' } };
    const request = http.request(`${this.url.replace(/^ws/, 'http')}/topics/${topic}`, options, (answer) => answer.resume());
    request.on('error', () => {});
    request.end(body);
  }

  #every(period, act) {
    this.timers.push(setInterval(act, period));
  }

  leave() {
    this.timers.forEach(clearInterval);
    this.timers = null;
    for (const client of this.clients) client.ws.terminate();
    for (const request of this.requests) request.destroy();
    this.agent.destroy();
  }
}

module.exports = { Crowd };
