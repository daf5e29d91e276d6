/**
 * How fast does one 64 KiB cluster become a zstd frame, and how small? The clusters are those of a
 * disk with an installed system. libzstd at level 3 is what QEMU writes with.
 */
import { closeSync, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as zlib from 'node:zlib';
import { compress, init } from '@bokuweb/zstd-wasm';
import { ARENA_BASE, INPUT_SLACK } from '../../src/kernels/kernels.ts';
import { wasmKernels } from '../../src/kernels/wasm.ts';
import { makeSystemDisk } from '../convert/system-disk.ts';

const CLUSTER = 65536;
const DISK_BYTES = 128 * 1024 * 1024;
/** Clusters that are measured, evenly spread over those that are not zero. */
const CLUSTERS = 192;
/** Clusters that one row works on before it is the next one's turn. */
const TURN = 4;
const ROUNDS = 27;

function clusters(): Uint8Array[] {
  const folder = mkdtempSync(join(tmpdir(), 'bench-'));
  try {
    const path = join(folder, 'disk');
    makeSystemDisk(path, DISK_BYTES);
    const file = openSync(path, 'r');
    const full: Uint8Array[] = [];
    for (let at = 0; at < DISK_BYTES; at += CLUSTER) {
      const cluster = new Uint8Array(CLUSTER);
      readSync(file, cluster, 0, CLUSTER, at);
      if (cluster.some((byte) => byte !== 0)) full.push(cluster);
    }
    closeSync(file);
    return Array.from(
      { length: CLUSTERS },
      (_, i) => full[Math.floor((i * full.length) / CLUSTERS)]!,
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
}

interface Row {
  readonly name: string;
  /** Length of the frame that cluster `i` becomes. */
  readonly encode: (i: number) => number;
  /** Every how many turns this row takes one: the slow ones need not be measured as often. */
  readonly every: number;
}

/** Prints MB/s of plain bytes: each turn's best of all rounds, rows taking turns. */
export default async function bench(): Promise<void> {
  await init();
  const all = clusters();
  const memory = new WebAssembly.Memory({
    initial: (ARENA_BASE + (CLUSTERS + 2) * CLUSTER) / 65536,
  });
  const dst = ARENA_BASE;
  const src = dst + CLUSTER + INPUT_SLACK;
  const bytes = new Uint8Array(memory.buffer);
  all.forEach((cluster, i) => {
    bytes.set(cluster, src + i * CLUSTER);
  });
  const kernels = wasmKernels(memory);
  const kernel = (level: number) => (i: number) =>
    kernels.zstdEncode(src + i * CLUSTER, CLUSTER, dst, CLUSTER - 1, level) || CLUSTER;

  const rows: Row[] = [
    { name: 'kernel, level 3', encode: kernel(3), every: 1 },
    { name: 'kernel, level 1', encode: kernel(1), every: 1 },
    { name: 'kernel, level 6', encode: kernel(6), every: 2 },
    { name: 'kernel, level 9', encode: kernel(9), every: 8 },
    {
      name: '@bokuweb/zstd-wasm, level 3',
      encode: (i) => Math.min(CLUSTER, compress(all[i]!, 3).length),
      every: 1,
    },
  ];
  const node = zlib as unknown as {
    zstdCompressSync?: (
      bytes: Uint8Array,
      options: { params: Record<number, number> },
    ) => Uint8Array;
    constants: { ZSTD_c_compressionLevel: number };
  };
  const { zstdCompressSync } = node;
  if (zstdCompressSync) {
    for (const [level, every] of [
      [1, 1],
      [3, 1],
      [6, 2],
      [9, 2],
      [13, 4],
      [19, 8],
    ] as const) {
      const params = { [node.constants.ZSTD_c_compressionLevel]: level };
      rows.push({
        name: `node:zlib, level ${level}`,
        encode: (i) => Math.min(CLUSTER, zstdCompressSync(all[i]!, { params }).length),
        every,
      });
    }
  }

  const measured = rows.map((row) => {
    let size = 0;
    for (let i = 0; i < CLUSTERS; i++) size += row.encode(i);
    return { ...row, size, best: new Array<number>(CLUSTERS / TURN).fill(Infinity) };
  });
  for (let round = 0; round < ROUNDS; round++) {
    for (let turn = 0; turn < CLUSTERS / TURN; turn++) {
      for (const { encode, every, best } of measured) {
        if (turn % every || (every > 2 && round % 9)) continue;
        const start = performance.now();
        for (let i = 0; i < TURN; i++) encode(turn * TURN + i);
        best[turn] = Math.min(best[turn]!, performance.now() - start);
      }
    }
  }

  const milliseconds = (times: number[]): number => {
    const taken = times.filter((ms) => ms !== Infinity);
    return taken.reduce((sum, ms) => sum + ms, 0) / taken.length;
  };
  console.log(`${CLUSTERS} clusters of 64 KiB; how the kernel's level 3 compares`);
  const first = measured[0]!;
  for (const { name, size, best, every } of measured) {
    // Against the turns that this row took.
    const own = milliseconds(best);
    const same = milliseconds(first.best.filter((_, turn) => turn % every === 0));
    const speed = (TURN * CLUSTER) / 1e3 / own;
    console.log(
      `${name.padEnd(28)}${speed.toFixed(0).padStart(6)} MB/s   × ${(own / same).toFixed(2)}` +
        `   ratio ${(size / CLUSTERS / CLUSTER).toFixed(4)}` +
        `   size × ${(first.size / size).toFixed(4)}`,
    );
  }
}
