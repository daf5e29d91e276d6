/** A story of writes and snapshots, told to an engine step by step beside a model of it. */
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { RawImage } from '../../src/image/raw/raw-image.ts';
import type { Random } from '../random.ts';
import type { FileOpener } from './paged-bytes.ts';
import { qcow2Engine } from './qcow2-engine.ts';
import { outcome, randomWorkload, send } from './workload.ts';
import {
  BACKING,
  firstDifference,
  IMAGE,
  randomBytes,
  readWhole,
  type WriteSetting,
} from './write-engine.ts';

/** What a snapshot must show. */
export interface SnapshotModel {
  readonly name: string;
  readonly content: Uint8Array;
  readonly vmState: Uint8Array;
}

/** What an image must show. */
export interface ImageModel {
  readonly content: Uint8Array;
  readonly snapshots: readonly SnapshotModel[];
}

/** One step of the story. */
export interface StoryStep {
  readonly about: string;
  /** Whether a crash in its middle leaves what was before, or what is after, and no more. */
  readonly atomic: boolean;
  run(image: Qcow2Image): Promise<void>;
  after(model: ImageModel): ImageModel;
}

/** Some writes of any kind, and a flush. */
export function writes(next: Random, setting: WriteSetting, about = 'writes'): StoryStep {
  const drawn = randomWorkload(next, setting, { batches: 6, resize: false });
  // Version 2 has nothing that hides a backing file's bytes: what is discarded stays as it was.
  const keeps = setting.version === 2 && setting.backingBytes !== undefined;
  const batches = drawn.map((batch) => batch.filter(({ kind }) => !keeps || kind !== 'discard'));
  return {
    about,
    atomic: false,
    async run(image) {
      for (const batch of batches) for (const step of batch) await send(image, step);
    },
    after(model) {
      const content = model.content.slice();
      for (const step of batches.flat()) {
        const change = outcome(step, content.length);
        if (change) content.set(change.bytes, change.at);
      }
      return { ...model, content };
    },
  };
}

/** Another size of the disk. */
export function resized(size: number): StoryStep {
  return {
    about: `resize ${size}`,
    atomic: false,
    async run(image) {
      await image.resize(size);
      await image.flush();
    },
    after(model) {
      const content = new Uint8Array(size);
      content.set(model.content.subarray(0, size));
      return { ...model, content };
    },
  };
}

/** A snapshot is taken, with so many bytes of VM state. */
export function taken(name: string, vmState: Uint8Array = new Uint8Array()): StoryStep {
  return {
    about: `create ${name}`,
    // VM state is written first: a crash leaves what is no part of the disk.
    atomic: true,
    async run(image) {
      await image.snapshots.create(vmState.length > 0 ? { name, vmState } : { name });
    },
    after: ({ content, snapshots }) => ({
      content,
      snapshots: [...snapshots, { name, content, vmState }],
    }),
  };
}

/** The disk goes back to a snapshot. */
export function applied(name: string): StoryStep {
  return {
    about: `apply ${name}`,
    atomic: true,
    run: (image) => image.snapshots.apply({ name }),
    after: ({ snapshots }) => ({
      content: snapshots.find((one) => one.name === name)!.content,
      snapshots,
    }),
  };
}

/** A snapshot goes. */
export function deleted(name: string): StoryStep {
  return {
    about: `delete ${name}`,
    atomic: true,
    run: (image) => image.snapshots.delete({ name }),
    after: ({ content, snapshots }) => ({
      content,
      snapshots: snapshots.filter((one) => one.name !== name),
    }),
  };
}

/** A story with every verb, for any setting that has room for two more references. */
export function story(next: Random, setting: WriteSetting): StoryStep[] {
  const { size, version, clusterBits } = setting;
  const state = randomBytes(next, 3 * 2 ** clusterBits - 77);
  const bigger = size + 37 * 2 ** clusterBits;
  return [
    writes(next, setting),
    taken('a'),
    writes(next, setting),
    taken('b', state),
    ...(version === 3 ? [resized(bigger)] : []),
    writes(next, setting),
    applied('a'),
    writes(next, setting),
    deleted('a'),
    writes(next, setting),
    taken('c'),
    applied('b'),
    deleted('c'),
    applied('b'),
    deleted('b'),
  ];
}

/** Opens the image for writing. */
export function openImage(files: FileOpener, setting: WriteSetting): Promise<Qcow2Image> {
  return qcow2Engine(4096).open(files, setting) as Promise<Qcow2Image>;
}

/** How an image differs from a model; empty where it does not. */
export async function mismatch(
  image: Qcow2Image,
  files: FileOpener,
  model: ImageModel,
): Promise<string> {
  const found = image.snapshots.list().map(({ name }) => name);
  const wanted = model.snapshots.map(({ name }) => name);
  if (found.join() !== wanted.join()) return `snapshots ${found}, not ${wanted}`;
  const active = firstDifference(await readWhole(image), model.content);
  if (active !== '') return `active: ${active}`;
  for (const { name, content, vmState } of model.snapshots) {
    const reader = await Qcow2Image.open(files.open(IMAGE), {
      snapshot: { name },
      backing: (backing) => RawImage.open(files.open(backing || BACKING)),
    });
    const bytes = new Uint8Array(Math.min(reader.size, content.length));
    await reader.read(0, bytes);
    await reader.close();
    const wrong = firstDifference(bytes, content.subarray(0, bytes.length));
    if (wrong !== '') return `snapshot ${name}: ${wrong}`;
    const state = new Uint8Array(vmState.length);
    await image.snapshots.readVmState({ name }, 0, state);
    const other = firstDifference(state, vmState);
    if (other !== '') return `VM state of ${name}: ${other}`;
  }
  return '';
}
