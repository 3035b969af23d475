// A service on an event loop. `loop.js PORT NEXT_PORT`: asks the next service for the same path, waits a little, then answers.
'use strict';
const http = require('http');

const [port, nextPort] = process.argv.slice(2).map(Number);
const agent = new http.Agent({ keepAlive: true, maxSockets: 64 });

http.createServer((request, response) => {
  const options = { host: '127.0.0.1', port: nextPort, path: request.url, agent };
  const pause = Math.random() * 4;
  setTimeout(() => {
    http.get(options, (answer) => {
      answer.resume();
      answer.on('end', () => setTimeout(() => response.end('done'), pause));
    });
  }, pause);
}).listen(port, '127.0.0.1');
