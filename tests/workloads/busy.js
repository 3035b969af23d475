// Spends its time in busyFunction, which V8 compiles. Usage: busy.js SECONDS.
'use strict';

function busyFunction(turns) {
  let state = 1;
  for (let turn = 0; turn < turns; turn++) {
    state = (Math.imul(state, 3) + turn) | 0;
  }
  return state;
}

const deadline = Date.now() + 1000 * Number(process.argv[2]);
let sink = 0;
while (Date.now() < deadline) {
  sink ^= busyFunction(1e6);
}
process.exitCode = sink === 0.5 ? 1 : 0;
