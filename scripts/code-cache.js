// Has V8 compile the tools' scripts ahead, so that they start without parsing: the tools are run as
// people run them, and what V8 has compiled by the end of a run is kept beside them, by version of
// Node and kind of machine. `src/cli/script-loader.ts` uses it.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, say } from './setup.js';

/** With so much to do conversions use threads, and set V8's flags for them. */
const MUCH_BYTES = 64 * 2 ** 20;
const LITTLE_BYTES = 2 ** 21;

/** Lines of the tools that between them call what most runs do. Each adds to those before it. */
const RUNS = [
  'qcow2-img create -q -f qcow2 empty.qcow2 1G',
  'qcow2-img info empty.qcow2',
  'qcow2-img convert -f raw -O qcow2 disk.raw disk.qcow2',
  'qcow2-img info --output=json disk.qcow2',
  'qcow2-img convert -c -O qcow2 disk.qcow2 zlib.qcow2',
  'qcow2-img convert -c -O qcow2 -o compression_type=zstd zlib.qcow2 zstd.qcow2',
  'qcow2-img convert -c -O qcow2 zlib.qcow2 again.qcow2',
  'qcow2-img convert -O raw zlib.qcow2 zlib.raw',
  'qcow2-img convert -O qcow2 disk.qcow2 copy.qcow2',
  'qcow2-img create -q -f qcow2 -b disk.qcow2 -F qcow2 top.qcow2',
  'qcow2-img info --backing-chain top.qcow2',
  'qcow2-img convert -O raw top.qcow2 top.raw',
  'qcow2-img convert -O qcow2 top.qcow2 whole.qcow2',
  'qcow2-img map top.qcow2',
  'qcow2-img compare disk.qcow2 disk.raw',
  'qcow2-img check disk.qcow2',
  'qcow2-img snapshot -c one disk.qcow2',
  'qcow2-img snapshot -l disk.qcow2',
  'qcow2-img convert -f raw -c -O qcow2 much.raw much.qcow2',
  'qcow2-io disk.qcow2 -c write\\ 0\\ 64k -c read\\ 0\\ 64k -c flush',
];

/**
 * Fills `out/code-cache` for the Node that runs this. The tools work without it, so a run that
 * fails costs only what it would have added.
 */
export function recordCode(out) {
  const caches = join(out, 'code-cache', `${process.version}-${process.arch}`);
  const cwd = mkdtempSync(join(tmpdir(), 'qcow2-build-'));
  try {
    mkdirSync(caches, { recursive: true });
    writeFileSync(join(cwd, 'disk.raw'), someDisk(LITTLE_BYTES));
    writeFileSync(join(cwd, 'much.raw'), someDisk(MUCH_BYTES));
    for (const run of RUNS) {
      const [tool, ...args] = run.split(/(?<!\\) /).map((word) => word.replaceAll('\\ ', ' '));
      const command = ['--require', join(root, 'scripts', 'record-scripts.cjs')];
      const { status, stderr } = spawnSync(
        process.execPath,
        [...command, join(out, `${tool}.js`), ...args],
        { cwd, env: { ...process.env, RECORD: caches, NODE_OPTIONS: '' }, encoding: 'utf8' },
      );
      if (status !== 0) say(`'${run}' fails in this build: ${stderr.trim()}`);
    }
  } finally {
    rmSync(cwd, { recursive: true, force: true });
  }
}

/** Bytes of every kind: words that repeat, noise, and zeros. */
function someDisk(bytes) {
  const disk = Buffer.alloc(bytes);
  let state = 1;
  for (let at = 0; at < (bytes * 7) / 8; at += 4) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    disk.writeUInt32LE((at >> 16) % 3 === 0 ? state : (at >> 6) % 251, at);
  }
  return disk;
}
