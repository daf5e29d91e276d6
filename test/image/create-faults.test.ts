// Every call to the storage fails while an image is made: what is left is no image, or a whole one.
// Replay a failure with SEED=…, all calls with SLOW=1.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import type { Qcow2CreateOptions } from '../../src/image/qcow2/create.ts';
import { Qcow2Image, type Qcow2OpenOptions } from '../../src/image/qcow2/qcow2-image.ts';
import { RawImage } from '../../src/image/raw/raw-image.ts';
import { type Random, rng, SEED } from '../random.ts';
import { CrashFiles } from './crash-storage.ts';
import { FAULT_KINDS, type FaultPlan, FaultyFiles } from './faulty-storage.ts';
import { type FileOpener, MemoryFiles } from './paged-bytes.ts';
import { checkQcow2 } from './qcow2-check.ts';
import { SLOW } from './slow.ts';
import { BACKING, DATA, IMAGE } from './write-engine.ts';

const SIZE = 200 * 1024;
const PASSPHRASE = 'open sesame';

const kinds: Readonly<Record<string, Omit<Qcow2CreateOptions, 'size'>>> = {
  'small clusters': { clusterSize: 512 },
  'preallocated metadata': { clusterSize: 512, preallocation: 'metadata' },
  'preallocated room': { clusterSize: 4096, preallocation: 'falloc' },
  'preallocated zeros': { clusterSize: 4096, preallocation: 'full' },
  'lazy refcounts': { clusterSize: 1024, lazyRefcounts: true, preallocation: 'metadata' },
  'wide refcounts': { clusterSize: 512, refcountBits: 64, preallocation: 'metadata' },
  'a raw data file': { clusterSize: 4096, dataFile: { name: DATA, raw: true } },
  'a backing file': { clusterSize: 4096, backing: { name: BACKING, format: 'raw' } },
  'version 2': { clusterSize: 512, version: 2 },
  encryption: { clusterSize: 512, encryption: { format: 'aes', passphrase: PASSPHRASE } },
};

const opening = (files: FileOpener): Qcow2OpenOptions => ({
  backing: (name) => RawImage.open(files.open(name)),
  dataFile: async (name) => files.open(name),
  secret: PASSPHRASE,
});

const create = (files: FileOpener, options: Omit<Qcow2CreateOptions, 'size'>) =>
  Qcow2Image.create(files.open(IMAGE), { ...options, size: SIZE }, opening(files));

/** What is there is whole, or no image at all. @returns whether it is one */
async function judge(
  files: MemoryFiles,
  options: Omit<Qcow2CreateOptions, 'size'>,
  about: string,
): Promise<boolean> {
  const image = await Qcow2Image.open(files.open(IMAGE), opening(files)).catch((cause) => {
    if (!isQcow2Error(cause, 'NOT_QCOW2')) throw new Error(`${about}: ${cause}`, { cause });
  });
  if (!image) return false;
  assert.is(image.size, SIZE, about);
  assert.is(image.header.cryptMethod, options.encryption ? 1 : 0, about);
  assert.equal(checkQcow2(files.bytes(IMAGE)).corruptions, [], about);
  if (!options.encryption) {
    const bytes = new Uint8Array(SIZE).fill(1);
    await image.read(0, bytes);
    assert.ok(
      bytes.every((byte) => byte === 0),
      about,
    );
  }
  await image.close();
  return true;
}

async function failing(
  options: Omit<Qcow2CreateOptions, 'size'>,
  plan: FaultPlan,
): Promise<boolean> {
  const memory = MemoryFiles.empty(IMAGE, DATA, BACKING);
  const files = new FaultyFiles(memory);
  files.arm(plan);
  const about = `SEED=${SEED} ${JSON.stringify(plan)}`;
  const image = await create(files, options).catch((cause) => {
    if (!isQcow2Error(cause) || files.failures === 0) {
      throw new Error(`${about}: ${cause}`, { cause });
    }
  });
  const { failures } = files;
  files.arm();
  if (image) {
    // A failure that was nobody's business, such as one to give room back.
    assert.is(image.size, SIZE, about);
    await image.close();
  }
  const found = await judge(memory, options, about);
  if (image) assert.ok(found, about);
  // Only the magic number can have been carried out, and reported as a failure.
  else if (plan.partial !== 'all') assert.not.ok(found, about);
  return failures > 0;
}

const test = suite('making qcow2 images on storage that fails');

for (const [name, options] of Object.entries(kinds)) {
  test(`a failed call leaves nothing that looks whole: ${name}`, async () => {
    const next: Random = rng();
    for (const kind of FAULT_KINDS) {
      const stride = SLOW ? 1 : 11;
      for (let index = next.below(stride); ; index += stride) {
        const how = kind === 'write' && next.oneIn(2) ? 'NO_SPACE' : 'IO';
        const partial = next.pick(['none', 'half', 'all'] as const);
        const plan = { kinds: [kind], index, how, partial, forever: next.oneIn(2) } as const;
        if (!(await failing(options, plan))) break;
      }
    }
  });

  test(`nor does a power cut: ${name}`, async () => {
    const next = rng();
    const files = new CrashFiles(MemoryFiles.empty(IMAGE, DATA, BACKING).all);
    const made = await create(files, options);
    await made.close();
    const limits = SLOW ? { subsets: 20 } : { subsets: 2, cutsMax: 25 };
    for (const state of files.states(next, limits)) {
      await judge(state.files, options, `SEED=${SEED} ${state.about}`);
    }
    assert.ok(await judge(files.now, options, 'at last'));
  });
}

test.run();
