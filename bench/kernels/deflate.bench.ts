/**
 * How fast does a cluster get small, and how small? Clusters of 64 KiB: of a disk with an installed
 * system, and of a mix of what compresses hardly at all, a little and very well. Against node:zlib
 * at level 6, as it is by default and with QEMU's settings (a window of 4 KiB, the most memory),
 * and against the system's own zlib, which is what QEMU calls, where Python can reach it.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateRawSync } from 'node:zlib';
import { ARENA_BASE, INPUT_SLACK } from '../../src/kernels/kernels.ts';
import { wasmKernels } from '../../src/kernels/wasm.ts';
import { SAMPLES } from '../../test/kernels/deflate-samples.ts';
import { rng } from '../../test/random.ts';
import { makeSystemDisk } from '../convert/system-disk.ts';

const CLUSTER = 65536;
const MIB = 1 << 20;
const DISK_BYTES = 128 * MIB;
/** So many clusters of the disk, evenly spread; fewer for levels that take their time. */
const CLUSTERS = 192;
const CLUSTERS_SLOW = 24;
const SLOW_LEVEL = 8;
const ROUNDS = 7;
const QEMU = { level: 6, windowBits: 12, memLevel: 9 };

interface Row {
  readonly name: string;
  /** Bytes of a cluster's stream. */
  readonly deflate: (cluster: Uint8Array) => number;
  readonly slow: boolean;
  readonly speeds: number[];
  ratio: number;
}

/** Clusters of the disk that hold anything, evenly spread. */
function systemClusters(folder: string): Uint8Array[] {
  const path = join(folder, 'disk');
  makeSystemDisk(path, DISK_BYTES);
  const disk = readFileSync(path);
  const used: Uint8Array[] = [];
  for (let at = 0; at < disk.length; at += CLUSTER) {
    const cluster = disk.subarray(at, at + CLUSTER);
    if (cluster.some((byte) => byte !== 0)) used.push(Uint8Array.from(cluster));
  }
  return Array.from(
    { length: CLUSTERS },
    (_, i) => used[Math.floor((i * used.length) / CLUSTERS)]!,
  );
}

function mixedClusters(): Uint8Array[] {
  const random = rng(1);
  const kinds = ['noise', 'words', 'records', 'noise and copies', 'patchwork', 'zeros'];
  return Array.from({ length: CLUSTERS / 4 }, (_, i) =>
    SAMPLES[kinds[i % kinds.length]!]!(random, CLUSTER),
  );
}

const memory = new WebAssembly.Memory({ initial: ARENA_BASE / 65536 + 4 });
const bytes = new Uint8Array(memory.buffer);
const kernels = wasmKernels(memory);

function kernelRow(level: number): Row {
  const dst = ARENA_BASE + CLUSTER + INPUT_SLACK;
  const deflate = (cluster: Uint8Array) => {
    bytes.set(cluster, ARENA_BASE);
    const length = kernels.deflate(ARENA_BASE, CLUSTER, dst, CLUSTER - 1, level);
    return length === 0 ? CLUSTER : length;
  };
  const slow = level >= SLOW_LEVEL;
  return { name: `kernel, level ${level}`, deflate, slow, speeds: [], ratio: 0 };
}

function zlibRow(name: string, options: object): Row {
  const deflate = (cluster: Uint8Array) =>
    Math.min(CLUSTER, deflateRawSync(cluster, options).length);
  return { name, deflate, slow: false, speeds: [], ratio: 0 };
}

/** MB/s of plain bytes by processor time. */
function speedOf({ deflate }: Row, clusters: readonly Uint8Array[]): number {
  const start = process.cpuUsage();
  for (const cluster of clusters) deflate(cluster);
  const { user, system } = process.cpuUsage(start);
  return (clusters.length * CLUSTER) / (user + system);
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1]!;
}

const PYTHON = `
import sys, time, zlib
data = open(sys.argv[1], 'rb').read()
clusters = [data[i:i + 65536] for i in range(0, len(data), 65536)]
best = 0
for _ in range(5):
    start = time.process_time()
    size = 0
    for cluster in clusters:
        out = zlib.compressobj(6, zlib.DEFLATED, -12, 9)
        size += min(65536, len(out.compress(cluster)) + len(out.flush()))
    best = max(best, len(data) / 1e6 / (time.process_time() - start))
print(best, size / len(data), zlib.ZLIB_RUNTIME_VERSION)
`;

/** What the system's zlib does with the clusters, at QEMU's settings. */
function systemZlib(folder: string, clusters: readonly Uint8Array[]) {
  const path = join(folder, 'clusters');
  writeFileSync(path, Buffer.concat(clusters));
  const { status, stdout } = spawnSync('python3', ['-c', PYTHON, path], { encoding: 'utf8' });
  if (status !== 0) return undefined;
  const [speed, ratio, version] = stdout.trim().split(' ');
  return { speed: Number(speed), ratio: Number(ratio), name: `zlib ${version}, QEMU's` };
}

function printLine(name: string, speed: number, ratio: number, base: number): void {
  console.log(
    `  ${name.padEnd(26)}${speed.toFixed(1).padStart(7)} MB/s` +
      `${(speed / base).toFixed(2).padStart(7)}x   to ${ratio.toFixed(4)}`,
  );
}

function table(title: string, folder: string, clusters: readonly Uint8Array[]): void {
  const qemu = zlibRow("node:zlib 6, QEMU's", QEMU);
  const rows = [
    ...Array.from({ length: 9 }, (_, i) => kernelRow(i + 1)),
    qemu,
    zlibRow('node:zlib 6', { level: 6 }),
    zlibRow("node:zlib 9, QEMU's", { ...QEMU, level: 9 }),
  ];
  const few = clusters.filter((_, i) => i % Math.ceil(clusters.length / CLUSTERS_SLOW) === 0);
  for (const row of rows) {
    const sum = clusters.reduce((total, cluster) => total + row.deflate(cluster), 0);
    row.ratio = sum / (clusters.length * CLUSTER);
  }
  for (let round = 0; round < ROUNDS; round++) {
    for (const row of rows) row.speeds.push(speedOf(row, row.slow ? few : clusters));
  }
  console.log(`deflate, ${title}: ${clusters.length} clusters of 64 KiB`);
  const base = median(qemu.speeds);
  for (const { name, speeds, ratio } of rows) printLine(name, median(speeds), ratio, base);
  const system = systemZlib(folder, clusters);
  if (system) printLine(system.name, system.speed, system.ratio, base);
}

/** Prints speeds, as multiples of node:zlib at QEMU's settings, and what is left of the bytes. */
export default async function bench(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'qcow2-bench-'));
  try {
    table('an installed system', folder, systemClusters(folder));
    table('a mix', folder, mixedClusters());
  } finally {
    rmSync(folder, { recursive: true });
  }
}
