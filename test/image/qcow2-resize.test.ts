// Disks that shrink, grow with preallocation, are made and are repaired: power cuts at every moment
// and failures of every call. Replay with SEED=…, all moments and calls with SLOW=1.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import type { Preallocation } from '../../src/image/disk.ts';
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { memoryStorage } from '../../src/storage/memory.ts';
import { rng, SEED } from '../random.ts';
import { CrashFiles } from './crash-storage.ts';
import { runFaults } from './faults.ts';
import { type FaultPlan, FaultyFiles } from './faulty-storage.ts';
import { MemoryFiles } from './paged-bytes.ts';
import { runPowerCuts } from './power-cut.ts';
import { checkQcow2 } from './qcow2-check.ts';
import { createOptions, qcow2Engine } from './qcow2-engine.ts';
import { SLOW } from './slow.ts';
import type { Batch } from './workload.ts';
import {
  firstDifference,
  firstFiles,
  IMAGE,
  readWhole,
  SMALL,
  type WriteSetting,
} from './write-engine.ts';

const KIB = 1024;
const MODES = ['metadata', 'falloc', 'full'] as const satisfies readonly Preallocation[];

const kinds: readonly (readonly [name: string, fixed: Partial<WriteSetting>])[] = [
  ['small clusters', {}],
  ['a backing file', { backingBytes: 200_000 }],
  ['version 2 over a backing file', { version: 2, backingBytes: 200_000 }],
  ['subclusters over a backing file', { clusterBits: 14, extended: true, backingBytes: 900_000 }],
  ['lazy refcounts', { lazy: true }],
  ['wide refcounts', { refcountBits: 64 }],
  ['a data file', { dataFile: 'file' }],
];

/** Disks of some hundred KiB, so that tables have something to shrink by. */
function settingOf(fixed: Partial<WriteSetting>): WriteSetting {
  const setting = { ...SMALL, ...fixed };
  return { ...setting, size: setting.clusterBits > 9 ? 512 * KIB : 100 * KIB };
}

const fill = (length: number, byte: number) => new Uint8Array(length).fill(byte);

/** A full disk that becomes small, in the middle of a cluster and at the end of one. */
function shrinking({ size, clusterBits, version }: WriteSetting): Batch[] {
  const cluster = 2 ** clusterBits;
  const discarded: Batch = [{ kind: 'discard', at: 2 * cluster, length: cluster }];
  return [
    [{ kind: 'write', at: 0, bytes: fill(size, 0x5a) }],
    [{ kind: 'flush' }],
    // Which version 2 does not do over a backing file.
    ...(version > 2 ? [discarded] : []),
    [{ kind: 'resize', size: size - (size % cluster) - cluster * 3 - 512 }],
    [{ kind: 'resize', size: 8 * cluster }],
    [{ kind: 'flush' }],
    [{ kind: 'write', at: 0, bytes: fill(8 * cluster, 0x5b) }],
    [{ kind: 'flush' }],
  ];
}

/** A disk that grows, its last cluster in part the old one's. */
function growing({ size, clusterBits }: WriteSetting, preallocation: Preallocation): Batch[] {
  const cluster = 2 ** clusterBits;
  return [
    [{ kind: 'write', at: size - 3 * cluster, bytes: fill(3 * cluster, 0x5a) }],
    [{ kind: 'resize', size: size - 512 }],
    [{ kind: 'flush' }],
    [{ kind: 'resize', size: size + 90 * KIB, preallocation }],
    [{ kind: 'write', at: size + 2 * cluster, bytes: fill(cluster, 0x5b) }],
    [{ kind: 'flush' }],
  ];
}

const test = suite('resizing, making and repairing qcow2');

const failed = (cause: Error) => {
  throw new Error(`SEED=${SEED} ${cause.message}`, { cause });
};

for (const [kind, [name, fixed]] of kinds.entries()) {
  const setting = settingOf(fixed);
  const modes: readonly (Preallocation | 'shrink')[] = ['shrink', 'off', ...MODES];
  for (const mode of modes) {
    const what = mode === 'shrink' ? 'shrinking' : `growing with preallocation=${mode},`;
    const workload = mode === 'shrink' ? shrinking(setting) : growing(setting, mode);
    // Every kind in every mode takes its time: by default each mode goes through some of them.
    if (!SLOW && mode !== 'shrink' && (kind + modes.indexOf(mode) + SEED) % 4 !== 0) continue;

    test(`power cuts while ${what} with ${name}`, async () => {
      const limits = SLOW ? { subsets: 5, cutsMax: 300 } : { subsets: 2, cutsMax: 24 };
      const options = { ...limits, doubt: 'known' } as const;
      const states = await runPowerCuts(qcow2Engine(4096), setting, workload, rng(), options).catch(
        failed,
      );
      assert.ok(states > 0);
    });

    test(`failures while ${what} with ${name}`, async () => {
      const next = rng();
      for (const kind of ['read', 'write', 'zero', 'truncate', 'flush'] as const) {
        for (const forever of SLOW ? [false, true] : [next.oneIn(2)]) {
          const runs = await runFaults(qcow2Engine(4096), setting, workload, next, {
            kinds: [kind],
            how: next.pick(['IO', 'NO_SPACE']),
            forever,
            partial: next.pick(['none', 'half', 'all']),
            stride: SLOW ? 1 : 29,
          }).catch(failed);
          assert.ok(runs > 0);
        }
      }
    });
  }
}

test('an image that was cut off while it was made is none, or a whole one', async () => {
  const next = rng();
  for (const [, fixed] of kinds) {
    const setting = { ...settingOf(fixed), size: 40 * KIB };
    for (const preallocation of ['off', ...MODES] as const) {
      if (setting.backingBytes !== undefined && preallocation !== 'off') continue;
      const files = new CrashFiles(firstFiles(next, setting));
      const options = { ...createOptions(setting), preallocation };
      const open = {
        backing: 'none',
        dataFile: async (name: string) => files.open(name),
      } as const;
      const made = await Qcow2Image.create(files.open(IMAGE), options, open);
      await made.close();
      for (const state of files.states(next, { subsets: SLOW ? 20 : 3 })) {
        const opening = { backing: 'none', dataFile: async (n: string) => state.files.open(n) };
        const disk = await Qcow2Image.open(state.files.open(IMAGE), opening as never).catch(
          (cause) => {
            if (!isQcow2Error(cause)) throw cause;
            return undefined;
          },
        );
        if (!disk) continue;
        const about = `SEED=${SEED} ${preallocation} ${state.about}`;
        assert.equal(checkQcow2(state.files.bytes(IMAGE)).corruptions, [], about);
        const bytes = new Uint8Array(disk.size).fill(1);
        await disk.read(0, bytes);
        assert.ok(
          bytes.every((byte) => byte === 0),
          about,
        );
        await disk.close();
      }
    }
  }
});

test('a shrink that failed leaves nothing on disk that memory does not know of', async () => {
  const MIB = 2 ** 20;
  const plain = MemoryFiles.empty(IMAGE);
  const places = [0, MIB, 5 * MIB, 7 * MIB + 512];
  const options = { size: 8 * MIB, clusterSize: 512, refcountBits: 64 };
  const made = await Qcow2Image.create(plain.open(IMAGE), options);
  // Refcount blocks that count nothing but clusters behind the end.
  for (const place of places) await made.write(place, fill(40 * KIB, 1));
  await made.close();
  const shrunk = async (plan?: FaultPlan) => {
    const memory = new MemoryFiles(new Map([[IMAGE, plain.bytes(IMAGE).copy()]]));
    const files = new FaultyFiles(memory);
    if (plan) files.arm(plan);
    const image = await Qcow2Image.open(files.open(IMAGE), { writable: true });
    const before = { ...files.counts };
    await image.resize(64 * KIB).catch((cause) => {
      if (!isQcow2Error(cause)) throw cause;
    });
    return { memory, image, before, after: { ...files.counts } };
  };
  const whole = await shrunk();
  await whole.image.close();
  for (const kind of ['write', 'flush'] as const) {
    for (let index = whole.before[kind]; index < whole.after[kind]; index++) {
      const about = `${kind} ${index}`;
      const plan = { kinds: [kind], index, how: 'IO', partial: 'all' } as const;
      const { memory, image } = await shrunk(plan);
      const wanted = new Uint8Array(8 * MIB);
      await image.resize(wanted.length);
      for (const [index, place] of places.entries()) {
        const bytes = fill(70 * KIB, index + 2);
        await image.write(place, bytes);
        wanted.set(bytes, place);
      }
      await image.flush();
      await image.close();
      assert.equal(checkQcow2(memory.bytes(IMAGE)).corruptions, [], about);
      const again = await Qcow2Image.open(memory.open(IMAGE));
      assert.is(firstDifference(await readWhole(again), wanted), '', about);
      await again.close();
    }
  }
});

test('L1 entries behind the end that name one table are refused, and nothing changes', async () => {
  const MIB = 2 ** 20;
  const storage = memoryStorage();
  const made = await Qcow2Image.create(storage, { size: 16 * MIB, clusterSize: 512 });
  await made.write(8 * MIB, fill(512, 1));
  const { l1Offset, l1Entries } = made.header;
  await made.close();
  const bytes = storage.snapshot();
  const view = new DataView(bytes.buffer);
  const named = view.getBigUint64(l1Offset + l1Entries * 4);
  assert.is.not(named, 0n);
  for (let slot = l1Entries / 2; slot < l1Entries; slot++) {
    view.setBigUint64(l1Offset + slot * 8, named);
  }
  for (const size of [16 * MIB, MIB]) {
    // What the header says the size is; the L1 table keeps its length when a disk shrinks.
    view.setBigUint64(24, BigInt(size));
    const hostile = memoryStorage(bytes.slice());
    const disk = await Qcow2Image.open(hostile, { writable: true });
    const error = await disk.resize(size === MIB ? 32 * MIB : MIB).then(
      () => undefined,
      (cause) => cause,
    );
    assert.ok(isQcow2Error(error, 'CORRUPT'), String(error));
    await disk.close();
    assert.equal(hostile.snapshot(), bytes);
  }
});

/** An image whose refcounts were let be, as a crash leaves it. */
async function dirtyImage(seed: number): Promise<{ files: CrashFiles; content: Uint8Array }> {
  const setting = { ...settingOf({ lazy: true }), size: 200 * KIB };
  const files = new CrashFiles(firstFiles(rng(seed), setting));
  const disk = await qcow2Engine(4096).create(files, setting);
  await disk.write(0, fill(60 * KIB, 1));
  await disk.flush();
  await disk.write(10 * KIB, fill(90 * KIB, 2));
  await disk.discard(20 * KIB, 20 * KIB);
  await disk.write(150 * KIB, fill(20 * KIB, 3));
  await disk.flush();
  // Not closed: that is the crash.
  const content = await readWhole(disk);
  return { files: new CrashFiles(files.now.all), content };
}

test('repairing a dirty image can be cut off at any moment, and done again', async () => {
  const next = rng();
  const { files, content } = await dirtyImage(SEED);
  assert.ok(checkQcow2(files.now.bytes(IMAGE)).dirty);
  const disk = await qcow2Engine(4096).open(files, SMALL);
  await disk.close();
  assert.is(checkQcow2(files.now.bytes(IMAGE)).leaks, 0);
  let states = 0;
  for (const state of files.states(next, { subsets: SLOW ? 20 : 4 })) {
    const about = `SEED=${SEED} ${state.about}`;
    states++;
    assert.equal(checkQcow2(state.files.bytes(IMAGE)).corruptions, [], about);
    const again = await qcow2Engine(4096).open(state.files, SMALL);
    assert.equal(await readWhole(again), content, about);
    await again.close();
    const { corruptions, leaks, dirty } = checkQcow2(state.files.bytes(IMAGE));
    assert.equal({ corruptions, leaks, dirty }, { corruptions: [], leaks: 0, dirty: false }, about);
  }
  assert.ok(states > 1);
});

test.run();
