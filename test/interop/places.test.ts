/**
 * The same requests, by qemu-io and by the library: clusters lie at the same places afterwards, are
 * kept or given up alike, and the files end alike. Replay with SEED=…, many more with SLOW=1.
 */
import { copyFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { openDisk } from '../../src/image/open.ts';
import { openNodeFile } from '../../src/storage/node-file.ts';
import { type Step, send } from '../image/workload.ts';
import { qemuSuite } from '../oracle.ts';
import { type Random, rng, SEED } from '../random.ts';
import { eachAtOnce, inScratch, qemuImg, qemuIo } from '../tool.ts';

const ROUNDS = process.env.SLOW ? 60 : 2;
const SESSIONS = process.env.SLOW ? 4 : 2;
const STEPS = 24;

/** One request of qemu-io's. */
interface Request {
  readonly verb: string;
  readonly kind: 'write' | 'compress' | 'zero' | 'unmap' | 'discard' | 'flush';
  readonly at: number;
  readonly length: number;
  readonly byte: number;
}

/** How images are made, and what of a disk's requests they can take. */
interface Layout {
  readonly options: string;
  readonly cluster: number;
  readonly backing?: boolean;
  readonly compress?: boolean;
  readonly lazy?: boolean;
}

const LAYOUTS: readonly Layout[] = [
  { options: 'cluster_size=512', cluster: 512, compress: true },
  { options: 'cluster_size=512', cluster: 512, backing: true },
  { options: 'cluster_size=4k,refcount_bits=1', cluster: 4096, compress: true },
  { options: 'cluster_size=64k', cluster: 65536, backing: true, compress: true },
  { options: 'compat=0.10,cluster_size=512', cluster: 512, compress: true },
  { options: 'compat=0.10,cluster_size=512', cluster: 512, backing: true },
  { options: 'compat=0.10,cluster_size=4k', cluster: 4096 },
  { options: 'compat=0.10,cluster_size=64k', cluster: 65536, backing: true },
  { options: 'cluster_size=16k,extended_l2=on', cluster: 16384 },
  { options: 'cluster_size=16k,extended_l2=on', cluster: 16384, backing: true, compress: true },
  { options: 'cluster_size=64k,extended_l2=on', cluster: 65536, compress: true },
  { options: 'cluster_size=4k,lazy_refcounts=on', cluster: 4096, lazy: true },
];

const VERBS = {
  write: 'write -P',
  compress: 'write -c -P',
  zero: 'write -z',
  unmap: 'write -z -u',
  discard: 'discard',
};

/** Requests on few clusters, so that they are used again and again. */
class Requests {
  /** Clusters that something was written to, and those of them that are compressed. */
  private readonly taken = new Set<number>();
  private readonly compressed = new Set<number>();

  constructor(
    private readonly next: Random,
    private readonly layout: Layout,
    private readonly size: number,
  ) {}

  some(): Request[] {
    // QEMU makes L2 tables also for discards that find nothing.
    const list = [request('write', 0, 512, 7)];
    this.taken.add(0);
    this.compressed.delete(0);
    for (let i = 0; i < STEPS; i++) {
      const request = this.one();
      const freed = this.freesStreams(request);
      if (freed && !this.isPlainOverwrite(request)) continue;
      list.push(request);
      this.note(request);
      // QEMU packs on into a cluster that was freed, and writes at once over streams that entries
      // on disk still name. Here neither is done: it takes an image that was closed and opened.
      if (freed) break;
      // With lazy refcounts what is freed waits for a flush here.
      const waits = this.layout.lazy && request.kind !== 'write';
      if (waits) list.push({ ...request, verb: 'flush', kind: 'flush' });
    }
    return list;
  }

  private one(): Request {
    const { next, size } = this;
    const { cluster, compress } = this.layout;
    const byte = 1 + next.below(255);
    const sectors = size / 512;
    const clusters = Math.ceil(size / cluster);
    let at = cluster * next.below(clusters);
    let length = Math.min(size - at, cluster * (1 + next.below(8)));
    // QEMU compresses only into clusters that have nothing.
    if (compress && next.oneIn(5) && length >= cluster && !this.taken.has(at / cluster)) {
      return request('compress', at, cluster, byte);
    }
    const kind = next.pick(['write', 'write', 'zero', 'unmap', 'discard'] as const);
    if (kind === 'write' || next.oneIn(2)) {
      at = 512 * next.below(sectors);
      length = 512 * (1 + next.below(Math.min(sectors - at / 512, Math.max(4, cluster / 170))));
    }
    return request(kind, at, length, byte);
  }

  /** Whether clusters that are compressed may be let go of. */
  private freesStreams({ at, length }: Request): boolean {
    return this.clusters(at, length).some((cluster) => this.compressed.has(cluster));
  }

  /**
   * QEMU handles requests in parts, and streams that one part frees serve the next. And where
   * subclusters cannot be zeroed it writes zeros to all of the request.
   */
  private isPlainOverwrite({ kind, at, length }: Request): boolean {
    const { cluster, options } = this.layout;
    if (length > cluster || (at % cluster) + length > cluster) return false;
    return length === cluster || kind === 'write' || !options.includes('extended');
  }

  private note({ kind, at, length }: Request): void {
    for (const cluster of this.clusters(at, length)) {
      this.taken.add(cluster);
      const start = cluster * this.layout.cluster;
      const stop = Math.min(this.size, start + this.layout.cluster);
      if (kind === 'compress') this.compressed.add(cluster);
      // Discarding a part of a cluster does nothing.
      else if (kind !== 'discard' || (at <= start && at + length >= stop)) {
        this.compressed.delete(cluster);
      }
    }
  }

  private clusters(at: number, length: number): number[] {
    const { cluster } = this.layout;
    const first = Math.floor(at / cluster);
    const end = Math.ceil((at + length) / cluster);
    return Array.from({ length: end - first }, (_, index) => first + index);
  }
}

function request(kind: Request['kind'], at: number, length: number, byte: number): Request {
  const pattern = kind === 'write' || kind === 'compress' ? `${byte} ` : '';
  const verb = kind === 'flush' ? kind : `${VERBS[kind]} ${pattern}${at} ${length}`;
  return { verb, kind, at, length, byte };
}

function stepOf({ kind, at, length, byte }: Request): Step {
  if (kind === 'write' || kind === 'compress') {
    return { kind, at, bytes: new Uint8Array(length).fill(byte) };
  }
  return kind === 'flush' ? { kind } : { kind, at, length };
}

async function ours(folder: string, list: readonly Request[]): Promise<void> {
  const open = (name: string, writable: boolean) => openNodeFile(join(folder, name), { writable });
  const disk = await openDisk(open('ours', true), {
    format: 'qcow2',
    writable: true,
    gate: async ({ name }) => open(name, false),
  });
  for (const request of list) await send(disk, stepOf(request));
  await disk.close();
}

/**
 * What qemu-img tells of where clusters are, a line for each stretch. Which data is zeros it asks
 * the file system, which makes holes as it likes.
 */
async function places(folder: string, name: string): Promise<string> {
  const map = await qemuImg(['map', '--output=json', '-f', 'qcow2', name], { cwd: folder });
  await qemuImg(['check', '-q', '-f', 'qcow2', name], { cwd: folder });
  const lines: string[] = [];
  for (const { start, depth, present, zero, data, offset } of JSON.parse(map.toString())) {
    const place = offset === undefined ? '' : `at +${offset - start}`;
    const what = `depth ${depth} ${present ? 'present' : ''} ${data ? 'data' : zero} ${place}`;
    if (!lines.at(-1)?.endsWith(`: ${what}`)) lines.push(`${start}: ${what}`);
  }
  // The last stream ends where its encoder lets it end.
  const sectors = Math.ceil(statSync(join(folder, name)).size / 512);
  return [...lines, `${sectors} sectors`].join('\n');
}

async function compareOnce(next: Random, layout: Layout): Promise<void> {
  const { options, cluster, backing } = layout;
  const size = 512 * (1 + next.below(Math.min(2 ** 22, 64 * cluster) / 512));
  await inScratch(async (folder) => {
    const bytes = Buffer.alloc(backing ? 1 + next.below(2 * size) : 0, 0xee);
    writeFileSync(join(folder, 'base'), bytes);
    const over = backing ? ['-b', 'base', '-F', 'raw'] : [];
    const args = ['create', '-q', '-f', 'qcow2', '-o', options, ...over, 'theirs', `${size}`];
    await qemuImg(args, { cwd: folder });
    copyFileSync(join(folder, 'theirs'), join(folder, 'ours'));
    const log: string[] = [];
    const source = new Requests(next, layout, size);
    for (let session = 0; session < SESSIONS; session++) {
      const list = source.some();
      const verbs = list.map(({ verb }) => verb);
      log.push(...verbs, '(closed)');
      await ours(folder, list);
      await qemuIo('theirs', verbs, { cwd: folder });
      const [mine, wanted] = [await places(folder, 'ours'), await places(folder, 'theirs')];
      assert.is(mine, wanted, `SEED=${SEED} ${options} size=${size}\n${log.join('\n')}`);
    }
  });
}

const test = qemuSuite('places of clusters, against qemu-io');

for (const [kind, layout] of LAYOUTS.entries()) {
  const { options, backing } = layout;
  test(`${options}${backing ? ' over a backing file' : ''}`, async () => {
    const rounds = Array.from({ length: ROUNDS }, (_, round) => kind * 1000 + round + 1);
    await eachAtOnce(rounds, (round) => {
      return compareOnce(rng((SEED ^ Math.imul(round, 0x9e3779b1)) | 0), layout);
    });
  });
}

test.run();
