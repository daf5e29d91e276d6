// Keeps what V8 made of a tool's scripts in a run: loaded before the tool, by code-cache.js.
//
// RECORD names the folder that the caches go to. What was in it before is part of what is kept.
// A cache is good for the flags that V8 has when it is made: once a tool has set some, only what
// it loads from then on is kept.
const { mkdirSync, renameSync, writeFileSync } = require('node:fs');
const { basename, join } = require('node:path');
const { isMainThread, threadId } = require('node:worker_threads');
const v8 = require('node:v8');
const vm = require('node:vm');

const folder = process.env.RECORD;
const scripts = new Map();
const { setFlagsFromString } = v8;

v8.setFlagsFromString = (flags) => {
  scripts.clear();
  setFlagsFromString(flags);
};

vm.Script = class extends vm.Script {
  constructor(text, options) {
    super(text, options);
    scripts.set(basename(options.filename), this);
  }
};

function record() {
  mkdirSync(folder, { recursive: true });
  for (const [name, script] of scripts) {
    // Threads may record the same script: it is moved into place whole.
    const fresh = join(folder, `new-${process.pid}-${threadId}`);
    writeFileSync(fresh, script.createCachedData());
    renameSync(fresh, join(folder, name));
  }
}

if (isMainThread) process.on('exit', record);
// Threads are ended without an event.
else setInterval(record, 5).unref();
