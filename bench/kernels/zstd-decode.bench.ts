/**
 * How fast does a zstd frame of one 64 KiB cluster become plain? The clusters are pieces of the
 * installed system's files, compressed at level 3.
 */
import { closeSync, openSync, readdirSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import * as zlib from 'node:zlib';
import { compress, decompress, init } from '@bokuweb/zstd-wasm';
import { ARENA_BASE, INPUT_SLACK } from '../../src/kernels/kernels.ts';
import { wasmKernels } from '../../src/kernels/wasm.ts';
import { zstdDecode as zstdDecodeTwin } from '../../test/kernels/twin/zstd-decode.ts';
import { rng } from '../../test/random.ts';

const CLUSTER = 65536;
const ROUNDS = 31;

/** Clusters at random places of files of at least one; what zstd can't shrink is left out. */
function clusters(count: number): { plain: Uint8Array; stored: Uint8Array }[] {
  const random = rng(1);
  const files = ['/usr/lib', '/usr/share'].flatMap((folder) =>
    readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .filter((path) => statSync(path).size >= CLUSTER)
      .sort(),
  );
  const out: { plain: Uint8Array; stored: Uint8Array }[] = [];
  while (out.length < count) {
    const path = random.pick(files);
    const plain = new Uint8Array(CLUSTER);
    const file = openSync(path, 'r');
    readSync(
      file,
      plain,
      0,
      CLUSTER,
      random.below(Math.floor(statSync(path).size / CLUSTER)) * CLUSTER,
    );
    closeSync(file);
    const stored = compress(plain, 3);
    if (stored.length < CLUSTER) out.push({ plain, stored });
  }
  return out;
}

interface Row {
  readonly name: string;
  /** One pass over the first `count` of all clusters. */
  readonly pass: () => void;
  readonly count: number;
  readonly speeds: number[];
}

/** Prints MB/s of plain bytes, medians over alternating rounds. */
export default async function bench(): Promise<void> {
  await init();
  const all = clusters(160);
  const ratio = all.reduce((sum, { stored }) => sum + stored.length, 0) / all.length / CLUSTER;

  const memory = new WebAssembly.Memory({ initial: ARENA_BASE / 65536 + 240 });
  const bytes = new Uint8Array(memory.buffer);
  const dst = ARENA_BASE;
  let end = dst + CLUSTER;
  const sources = all.map(({ stored }) => {
    const at = end;
    bytes.set(stored, at);
    end += stored.length + INPUT_SLACK;
    return { at, length: stored.length };
  });
  const kernels = wasmKernels(memory);
  const twin = zstdDecodeTwin(memory);

  const rows: Row[] = [];
  const add = (name: string, count: number, one: (i: number) => void): void => {
    const pass = (): void => {
      for (let i = 0; i < count; i++) one(i);
    };
    rows.push({ name, pass, count, speeds: [] });
  };
  const decodeWith = (decode: typeof twin) => (i: number) => {
    const { at, length } = sources[i]!;
    if (decode(at, length, dst, CLUSTER) !== CLUSTER) throw new Error(`cluster ${i} is refused`);
  };
  add('kernel', all.length, decodeWith(kernels.zstdDecode));
  add('@bokuweb/zstd-wasm', all.length, (i) => decompress(all[i]!.stored));
  const node = zlib as unknown as { zstdDecompressSync?: (bytes: Uint8Array) => Uint8Array };
  const { zstdDecompressSync } = node;
  if (zstdDecompressSync) add('node:zlib', all.length, (i) => zstdDecompressSync(all[i]!.stored));
  add('twin', 4, decodeWith(twin));

  for (let round = 0; round < ROUNDS + 3; round++) {
    for (const { pass, count, speeds } of rows) {
      const start = process.cpuUsage();
      const from = performance.now();
      pass();
      const wall = performance.now() - from;
      const { user, system } = process.cpuUsage(start);
      // Processor time, except where it is too coarse or counts other threads' work, too.
      const ms = Math.min(wall, (user + system) / 1000);
      if (round >= 3) speeds.push((count * CLUSTER) / 1e6 / (ms / 1e3)); // three to warm up
    }
  }

  const median = (list: number[]): number => list.sort((a, b) => a - b)[list.length >> 1]!;
  const speeds = rows.map((row) => median(row.speeds));
  console.log(`${all.length} clusters of 64 KiB at level 3, to ${ratio.toFixed(3)} of their size`);
  rows.forEach(({ name }, i) => {
    const faster = (speeds[0]! / speeds[i]!).toFixed(2);
    console.log(
      `${name.padEnd(20)} ${speeds[i]!.toFixed(0).padStart(6)} MB/s   kernel × ${faster}`,
    );
  });
}
