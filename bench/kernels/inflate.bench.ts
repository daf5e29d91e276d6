/**
 * How fast does a compressed 64 KiB cluster become plain? The clusters are pieces of the installed
 * system's files, compressed as QEMU does it: level 6, a 4 KiB window, the most memory.
 */
import { closeSync, openSync, readdirSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { ARENA_BASE, INPUT_SLACK, type Kernels } from '../../src/kernels/kernels.ts';
import { wasmKernels } from '../../src/kernels/wasm.ts';
import { inflate as inflateTwin } from '../../test/kernels/twin/inflate.ts';
import { rng } from '../../test/random.ts';

const CLUSTER = 65536;
const CLUSTERS = 500;
/** The twin goes bit by bit: a few clusters tell its speed. */
const TWIN_CLUSTERS = 10;
const ROUNDS = 21;
const WARM_UP_ROUNDS = 3;

/** Pieces at random places of random files, those left out that deflate can't shrink. */
function compressedClusters(): { plain: Uint8Array; stored: Uint8Array }[] {
  const random = rng(1);
  const files = ['/usr/lib', '/usr/share'].flatMap((folder) =>
    readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .sort(),
  );
  const clusters: { plain: Uint8Array; stored: Uint8Array }[] = [];
  while (clusters.length < CLUSTERS) {
    const path = random.pick(files);
    const places = Math.floor(statSync(path).size / CLUSTER);
    if (places === 0) continue;
    const plain = new Uint8Array(CLUSTER);
    const file = openSync(path, 'r');
    readSync(file, plain, 0, CLUSTER, random.below(places) * CLUSTER);
    closeSync(file);
    const stored = deflateRawSync(plain, { level: 6, windowBits: 12, memLevel: 9 });
    if (stored.length < CLUSTER) clusters.push({ plain, stored });
  }
  return clusters;
}

interface Row {
  readonly name: string;
  /** Decodes the first `count` clusters, one a call. */
  readonly count: number;
  readonly decode: (cluster: number) => void;
  readonly speeds: number[];
}

/** MB/s of plain bytes by processor time. */
function speedOf({ count, decode }: Row): number {
  const start = process.cpuUsage();
  for (let i = 0; i < count; i++) decode(i);
  const { user, system } = process.cpuUsage(start);
  return (count * CLUSTER) / (user + system);
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1]!;
}

/** Prints MB/s of the kernel, of node:zlib and of the twin: medians of rounds that alternate. */
export default async function bench(): Promise<void> {
  const clusters = compressedClusters();
  const storedBytes = clusters.reduce((sum, { stored }) => sum + stored.length, 0);
  const ratio = storedBytes / (clusters.length * CLUSTER);

  const arenaBytes = CLUSTER + storedBytes + clusters.length * INPUT_SLACK;
  const memory = new WebAssembly.Memory({ initial: Math.ceil((ARENA_BASE + arenaBytes) / 65536) });
  const bytes = new Uint8Array(memory.buffer);
  let end = ARENA_BASE + CLUSTER;
  const places = clusters.map(({ stored }) => {
    const at = end;
    bytes.set(stored, at);
    end += stored.length + INPUT_SLACK;
    return at;
  });
  const decodeWith = (inflate: Kernels['inflate']) => (i: number) => {
    const result = inflate(places[i]!, clusters[i]!.stored.length, ARENA_BASE, CLUSTER);
    if (result !== CLUSTER) throw new Error(`cluster ${i}: ${result}`);
  };

  const rows: Row[] = [
    {
      name: 'kernel',
      count: CLUSTERS,
      decode: decodeWith(wasmKernels(memory).inflate),
      speeds: [],
    },
    {
      name: 'node:zlib',
      count: CLUSTERS,
      // One chunk: with more of them it would have to put the pieces together.
      decode: (i) => inflateRawSync(clusters[i]!.stored, { chunkSize: CLUSTER }),
      speeds: [],
    },
    { name: 'twin', count: TWIN_CLUSTERS, decode: decodeWith(inflateTwin(memory)), speeds: [] },
  ];
  clusters.forEach(({ plain }, i) => {
    rows[0]!.decode(i);
    const same = Buffer.compare(plain, bytes.subarray(ARENA_BASE, ARENA_BASE + CLUSTER)) === 0;
    if (!same) throw new Error(`cluster ${i} came out wrong`);
  });
  for (let round = -WARM_UP_ROUNDS; round < ROUNDS; round++) {
    for (const row of rows) {
      const speed = speedOf(row);
      if (round >= 0) row.speeds.push(speed);
    }
  }

  console.log(
    `inflate, ${CLUSTERS} clusters of 64 KiB stored in ${ratio.toFixed(3)} of their size`,
  );
  const kernelSpeed = median(rows[0]!.speeds);
  for (const { name, speeds } of rows) {
    const speed = median(speeds);
    const faster = (kernelSpeed / speed).toFixed(2);
    console.log(`  ${name.padEnd(12)}${speed.toFixed(1).padStart(8)} MB/s   kernel ${faster}x`);
  }
}
