'use strict';
// node grpc_member.js HOST:PORT TOPIC NAME COUNT TOTAL [CA]: joins, over TLS where CA is the file of an authority, says `ready`, and when a line comes publishes COUNT messages;
// prints the first TOTAL messages as JSON, then its acknowledgements' offsets.

const fs = require('node:fs');
const { edge } = require('./grpc_client.js');

const [address, topic, name, count, total, ca] = process.argv.slice(2);
const call = edge(address, {}, ca && fs.readFileSync(ca)).Connect();
const [messages, places] = [[], []];
call.on('error', (error) => {
  console.error(error);
  process.exit(1);
});
call.on('data', ({ frame, message, published }) => {
  if (frame === 'subscribed') {
    console.log('ready');
    process.stdin.once('data', () => {
      for (let number = 0; number < count; number++) call.write({ id: number + 1, publish: { topic, text: `${name} ${number}` } });
    });
  }
  if (frame === 'message') messages.push([message.cursor.epoch, message.cursor.offset, message.text ?? message.binary.toString()]);
  if (frame === 'published') places.push(published.cursor.offset);
  if (messages.length >= total && places.length >= count) {
    console.log(JSON.stringify({ messages, places }));
    call.cancel();
    process.exit(0);
  }
});
call.write({ id: 1, subscribe: { topic } });
