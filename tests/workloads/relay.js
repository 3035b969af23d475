// A service on an event loop. `relay.js PORT NEXT_PORT REDIS_PORT`: asks the next service for the same path and Redis, by one
// connection for all, then answers. Redis is asked with as many keys as the number in the path says.
'use strict';
const http = require('http');
const net = require('net');

const [port, nextPort, redisPort] = process.argv.slice(2).map(Number);
const agent = new http.Agent({ keepAlive: true, maxSockets: 64 });
const redis = net.connect(redisPort, '127.0.0.1');
const waiting = [];
let held = '';

redis.on('data', (bytes) => {
  held += bytes;
  // Every answer is a number.
  for (let end = held.indexOf('\r\n'); end >= 0; end = held.indexOf('\r\n')) {
    held = held.slice(end + 2);
    waiting.shift()();
  }
});

function askRedis(path, then) {
  const keys = 1 + Number(path.split('/').pop()) % 15;
  waiting.push(then);
  redis.write(`*${keys + 1}\r\n$3\r\nDEL\r\n` + '$1\r\nk\r\n'.repeat(keys));
}

http.createServer((request, response) => {
  const options = { host: '127.0.0.1', port: nextPort, path: request.url, agent };
  const ask = () => http.get(options, (answer) => {
    answer.resume();
    answer.on('end', () => askRedis(request.url, () => response.end('done')));
  });
  // Every third one is asked for at once.
  if (Number(request.url.split('/').pop()) % 3 === 0) ask(); else setTimeout(ask, Math.random() * 4);
}).listen(port, '127.0.0.1');
