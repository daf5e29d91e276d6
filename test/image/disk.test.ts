/** Raw and qcow2 disks and chains of them keep the contract, also where storage answers late. */
import type { OpenDiskOptions } from '../../src/image/open.ts';
import { openDisk } from '../../src/image/open.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import { type Random, rng } from '../random.ts';
import { type DiskUnderTest, diskSuite } from './disk-contract.ts';
import { Ledger, wrapStorage } from './slow-storage.ts';
import { randomTiny, someBytes, type TinyOptions } from './tiny-qcow2.ts';

/** The files of an image and of all that it names, by name; the top one is `top`. */
interface Files {
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly model: Uint8Array;
}

interface Way {
  readonly title: string;
  readonly late: boolean;
  readonly cacheBytes?: number;
}

const WAYS: readonly Way[] = [
  { title: '', late: false },
  { title: ', one slice in memory', late: false, cacheBytes: 1 },
  { title: ', storage late', late: true },
  { title: ', storage late, one slice in memory', late: true, cacheBytes: 1 },
  { title: ', storage late, some slices in memory', late: true, cacheBytes: 3000 },
];

async function openFiles(
  { files, model }: Files,
  { late, cacheBytes }: Way,
  next: Random,
): Promise<DiskUnderTest> {
  const ledger = new Ledger();
  const open = (name: string) => {
    const storage = memoryStorage(files.get(name)!, { name, writable: false });
    return wrapStorage(storage, { ledger, late: late ? next : undefined });
  };
  const options: OpenDiskOptions = {
    gate: ({ name }) => open(name),
    ...(cacheBytes === undefined ? {} : { cacheBytes }),
  };
  const disk = await openDisk(open('top'), {
    ...options,
    format: files.has('raw') ? 'raw' : undefined,
  });
  const leaks = () =>
    ledger.settled ? '' : `${ledger.opened} opened, ${ledger.closed} closed, ${ledger.misuse}`;
  return { disk, model, leaks };
}

/** Runs the contract in every way over one image, which is made once. */
function each(title: string, make: (next: Random) => Files): void {
  let made: Files | undefined;
  for (const way of WAYS) {
    diskSuite(`${title}${way.title}`, (seed) => {
      const next = rng(seed);
      made ??= make(next);
      return openFiles(made, way, next);
    });
  }
}

/** Clusters enough for several L2 tables where those are small, few where clusters are large. */
function sizeFor(next: Random, clusterBits: number): number {
  const clusters = clusterBits <= 12 ? 700 : clusterBits <= 16 ? 20 : 3;
  const most = Math.min(2 ** clusterBits * clusters, 5 * 2 ** 20);
  return 512 * (1 + next.below(most / 512));
}

function single(next: Random, options: Omit<TinyOptions, 'size'>): Files {
  const size = sizeFor(next, options.clusterBits);
  const { file, data, model } = randomTiny(next, { ...options, size });
  const files = new Map([['top', file]]);
  if (data) files.set('data', data);
  return { files, model };
}

each('raw', (next) => {
  const bytes = someBytes(next, 100_000 + next.below(1000));
  const model = new Uint8Array(Math.ceil(bytes.length / 512) * 512);
  model.set(bytes);
  return { files: new Map([['top', bytes]]), model };
});

for (const clusterBits of [9, 10, 12, 16, 21]) {
  for (const version of [2, 3] as const) {
    if (version === 2 && clusterBits !== 9 && clusterBits !== 16) continue;
    each(`qcow2 version ${version}, clusters of 2^${clusterBits}`, (next) =>
      single(next, { version, clusterBits }),
    );
  }
}

for (const clusterBits of [14, 16, 21]) {
  each(`qcow2 with subclusters, clusters of 2^${clusterBits}`, (next) =>
    single(next, { version: 3, clusterBits, extended: true }),
  );
}

for (const extended of [false, true]) {
  each(`qcow2 with a data file${extended ? ' and subclusters' : ''}`, (next) =>
    single(next, { version: 3, clusterBits: 14, extended, dataFile: 'data' }),
  );
}

each('a file that ends within its last cluster', (next) => {
  const { files, model } = single(next, { version: 3, clusterBits: 9, dataFile: 'data' });
  const data = files.get('data')!;
  const cut = data.length - next.below(512);
  model.fill(0, Math.min(model.length, cut), Math.min(model.length, data.length));
  return { files: new Map([...files, ['data', data.slice(0, cut)]]), model };
});

each('a chain over a raw image', (next) => {
  const files = new Map<string, Uint8Array>();
  const bytes = someBytes(next, 40_000 + next.below(60_000));
  files.set('base', bytes);
  let model = new Uint8Array(Math.ceil(bytes.length / 512) * 512);
  model.set(bytes);
  let backing: { name: string; format?: string } = { name: 'base', format: 'raw' };
  for (const [index, name] of ['low', 'middle', 'top'].entries()) {
    const clusterBits = next.pick([9, 10, 12, 14, 16]);
    const extended = clusterBits >= 14 && next.oneIn(2);
    // Longer and shorter than what is below.
    const size = 512 * (1 + next.below(400));
    const options = { version: 3, clusterBits, extended, size, backing } as const;
    const made = randomTiny(next, options, model);
    files.set(name, made.file);
    model = new Uint8Array(made.model);
    backing = index === 0 ? { name } : { name, format: 'qcow2' };
  }
  return { files, model };
});
