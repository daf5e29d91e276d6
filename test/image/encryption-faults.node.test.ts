// Encrypted images, power cuts and failing storage: no image is harmed, and whatever happens no
// plain byte is ever on its way to a file. Replay a failure with SEED=…, all of it with SLOW=1.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Qcow2Image, type Qcow2OpenOptions } from '../../src/image/qcow2/qcow2-image.ts';
import { RawImage } from '../../src/image/raw/raw-image.ts';
import { type Random, rng, SEED } from '../random.ts';
import { runFaults } from './faults.ts';
import type { FileOpener } from './paged-bytes.ts';
import { runPowerCuts } from './power-cut.ts';
import { createOptions } from './qcow2-engine.ts';
import { SLOW } from './slow.ts';
import { type Batch, randomWorkload, type Step, scriptedWorkload } from './workload.ts';
import { DATA, IMAGE, SMALL, type WriteEngine, type WriteSetting } from './write-engine.ts';

/** Plain bytes that are looked for: as many as no encryption makes by chance. */
const PIECE = 16;

/** Pieces of what a workload writes, where sectors start; none that tables may look like. */
class PlainBytes {
  private readonly pieces = new Set<string>();
  /** Writes that were looked at. */
  seen = 0;

  constructor(workload: readonly Batch[]) {
    for (const step of workload.flat()) {
      if (step.kind !== 'write') continue;
      for (let at = (512 - (step.at % 512)) % 512; at + PIECE <= step.bytes.length; at += 512) {
        const piece = step.bytes.subarray(at, at + PIECE);
        // Noise, as nothing else of the image is.
        if (new Set(piece).size >= 12) this.pieces.add(Buffer.from(piece).toString('latin1'));
      }
    }
  }

  get count(): number {
    return this.pieces.size;
  }

  /** Throws where plain bytes are written: sectors of a guest are sectors of a file. */
  watch(at: number, bytes: Uint8Array): void {
    this.seen++;
    for (let from = (512 - (at % 512)) % 512; from + PIECE <= bytes.length; from += 512) {
      const piece = Buffer.from(bytes.subarray(from, from + PIECE)).toString('latin1');
      if (this.pieces.has(piece)) throw new Error(`plain bytes are written to ${at + from}`);
    }
  }
}

/** The engine with encryption; every write to the image's own files is looked at. */
function encryptedEngine(
  format: 'aes' | 'luks',
  plain: PlainBytes,
  cacheBytes: number,
): WriteEngine {
  const passphrase = 'a passphrase';
  const watched = (files: FileOpener, name: string) => {
    const storage = files.open(name);
    const write = storage.write.bind(storage);
    storage.write = (at, from) => {
      plain.watch(at, from);
      return write(at, from);
    };
    return storage;
  };
  const opening = (files: FileOpener): Qcow2OpenOptions => ({
    writable: true,
    cacheBytes,
    secret: passphrase,
    backing: (name) => RawImage.open(files.open(name)),
    dataFile: async (name) => watched(files, name || DATA),
    dataFileUnnamed: true,
  });
  const encryption =
    format === 'aes' ? { format, passphrase } : { format, passphrase, iterTime: 1 };
  return {
    create: (files, setting) => {
      const create = { ...createOptions(setting), encryption };
      return Qcow2Image.create(watched(files, IMAGE), create, opening(files));
    },
    open: (files) => Qcow2Image.open(watched(files, IMAGE), opening(files)),
  };
}

/** What encrypted images can do of a workload: they hold no compressed clusters. */
function plainSteps(workload: readonly Batch[]): Batch[] {
  const plain = (step: Step): Step => {
    if (step.kind === 'compress') return { ...step, kind: 'write' };
    return step.kind === 'resize' ? { kind: 'resize', size: step.size } : step;
  };
  return workload.map((batch) => batch.map(plain));
}

const kinds: readonly (readonly [
  name: string,
  format: 'aes' | 'luks',
  fixed: Partial<WriteSetting>,
])[] = [
  ['the old AES', 'aes', {}],
  ['the old AES and subclusters', 'aes', { clusterBits: 14, extended: true, size: 512 * 1024 }],
  ['the old AES and a data file', 'aes', { dataFile: 'file' }],
  ['the old AES and a backing file', 'aes', { backingBytes: 50_000 }],
  ['LUKS', 'luks', { clusterBits: 12, size: 128 * 1024 }],
  ['LUKS and subclusters', 'luks', { clusterBits: 14, extended: true, size: 512 * 1024 }],
];

const test = suite('encrypted images on storage that fails');

/** The scripted workload, or one of chance. */
function workloadOf(next: Random, setting: WriteSetting): Batch[] {
  return plainSteps(
    next.oneIn(2)
      ? scriptedWorkload(setting)
      : randomWorkload(next, setting, { batches: 20, concurrent: true, resize: true }),
  );
}

for (const [kind, [name, format, fixed]] of kinds.entries()) {
  const setting = { ...SMALL, size: 80 * 1024, ...fixed };
  // Each state is opened: with LUKS that takes some milliseconds.
  const few = format === 'luks' ? 3 : 1;

  test(`a power cut neither harms an image with ${name}, nor bares it`, async () => {
    const next = rng((SEED ^ Math.imul(kind + 1, 0x9e3779b1)) | 0);
    const workload = workloadOf(next, setting);
    const plain = new PlainBytes(workload);
    const limits = SLOW ? { subsets: 4 } : { subsets: 2, cutsMax: Math.floor(30 / few) };
    const engine = encryptedEngine(format, plain, next.pick([1, 4096, 65536]));
    const options = { ...limits, delayed: next.oneIn(2) };
    const states = await runPowerCuts(engine, setting, workload, next, options).catch((cause) => {
      throw new Error(`SEED=${SEED} ${cause.message}`, { cause });
    });
    assert.ok(states > 3 && plain.count > 0 && plain.seen > 0, `SEED=${SEED}`);
  });

  test(`nor do calls that fail, with ${name}`, async () => {
    const next = rng((SEED ^ Math.imul(kind + 101, 0x9e3779b1)) | 0);
    const workload = workloadOf(next, setting);
    const plain = new PlainBytes(workload);
    for (const call of ['read', 'write', 'zero', 'flush'] as const) {
      const engine = encryptedEngine(format, plain, next.pick([1, 65536]));
      await runFaults(engine, setting, workload, next, {
        kinds: [call],
        how: call === 'write' && next.oneIn(2) ? 'NO_SPACE' : 'IO',
        forever: next.oneIn(2),
        partial: next.pick(['none', 'half', 'all'] as const),
        delayed: next.oneIn(3),
        stride: SLOW ? 1 : 13 * few,
      }).catch((cause) => {
        throw new Error(`SEED=${SEED} ${cause.message}`, { cause });
      });
    }
    assert.ok(plain.count > 0 && plain.seen > 0, `SEED=${SEED}`);
  });
}

test.run();
