// `crash_abort.js abort` ends by SIGABRT; `crash_abort.js throw` by an exception that nobody catches: exit code 1.
'use strict';

function sinkBoat(way) {
  if (way === 'abort') {
    process.abort();
  }
  throw new Error('the keel is gone');
}

sinkBoat(process.argv[2]);
