'use strict';
// ws_crowd.js URL SUBSCRIBERS PUBLISHERS MESSAGES TOTAL
//
// The npm half of the order test: opens its clients in one topic, says "ready", waits for a line on its standard input,
// publishes MESSAGES from each publisher, and ends with one line of JSON: for each client the digest of all that it got
// (TOTAL messages are due), and the whole list of the first.

const { createHash } = require('node:crypto');
const { createInterface } = require('node:readline');
const { Client } = require('./ws_client.js');

const [url, ...counts] = process.argv.slice(2);
const [subscribers, publishers, messages, total] = counts.map(Number);

async function publish(client, name) {
  for (let number = 0; number < messages; number += 1) {
    client.ws.send(`${name} ${number}`);
    // Lets others in between, so that the publishers' messages mix.
    if (number % 8 === 7) await new Promise(setImmediate);
  }
}

// The order test opens raw TCP clients too, whose greetings ("line 3 is here") are not counted.
async function take(client) {
  const list = [];
  const isGreeting = (message) => message.toString().startsWith('line ');
  while (list.length < total) {
    const text = await client.next();
    if (!isGreeting(text)) list.push(text);
  }
  await client.settled();
  list.push(...client.inbox.filter((text) => !isGreeting(text)));
  return list;
}

async function main() {
  const clients = await Promise.all(Array.from({ length: subscribers + publishers }, () => Client.open(url)));
  await Promise.all(clients.map((client) => client.settled()));
  console.log('ready');
  const input = createInterface({ input: process.stdin });
  await new Promise((resolve) => input.once('line', resolve));
  input.close();
  const taken = Promise.all(clients.map(take));
  await Promise.all(clients.slice(0, publishers).map((client, index) => publish(client, `npm-${index}`)));
  const lists = await taken;
  const digests = lists.map((list) => createHash('sha256').update(list.join('\n')).digest('hex'));
  console.log(JSON.stringify({ digests, first: lists[0] }));
  await Promise.all(clients.map((client) => client.close()));
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
