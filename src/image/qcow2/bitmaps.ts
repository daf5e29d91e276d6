/** Persistent bitmaps of an image: reading their directory, and what can be done with them. */
import { Qcow2Error } from '../../base/errors.ts';
import {
  type BitmapDirectoryEntry,
  type BitmapExtension,
  parseBitmapDirectory,
} from '../../format/bitmap-directory.ts';
import { readFully } from '../../storage/read-fully.ts';
import type { Storage } from '../../storage/storage.ts';
import type { BitmapReader, GuestRange } from './bitmap-ranges.ts';
import type { BitmapDescription, BitmapState } from './bitmap-state.ts';
import type { BitmapStore } from './bitmap-store.ts';
import type { BitmapOptions } from './bitmap-verbs.ts';
import { changing } from './write-parts.ts';
import type { ImageWriter } from './writer.ts';

/**
 * Reads the bitmap directory.
 * @throws Qcow2Error CORRUPT, `at` = file offset of the entry or of the directory
 */
export async function readBitmapDirectory(
  storage: Storage,
  extension: BitmapExtension,
  options: { readonly clusterSize: number; readonly diskSize: number },
): Promise<BitmapDirectoryEntry[]> {
  const { directoryOffset: at, directoryBytes, count } = extension;
  if (at >= 2 ** 63) {
    throw new Qcow2Error('CORRUPT', 'Failed to read bitmap directory: Input/output error', at);
  }
  const bytes = new Uint8Array(directoryBytes);
  // Past the end of the file there are zeros, which are no entries.
  if (at < (await storage.size())) await readFully(storage, at, bytes);
  return parseBitmapDirectory(bytes, at, { count, ...options });
}

/** What the bitmaps of an image work on. */
export interface BitmapOwner {
  states(): readonly BitmapState[];
  /** @throws Qcow2Error READ_ONLY */
  writer(): ImageWriter;
  /** Bits of a writable image that are not in the file yet are brought there. */
  sync(): Promise<void>;
  reader(state: BitmapState): BitmapReader;
}

/**
 * The persistent dirty bitmaps of an open image. What changes them needs the image writable. Bits
 * are on disk, and believed by others, when the image is closed.
 */
export class Bitmaps {
  constructor(private readonly owner: BitmapOwner) {}

  /** All of them, in the order of the directory. */
  list(): BitmapDescription[] {
    return this.owner.states().map((state) => state.describe());
  }

  /**
   * Guest ranges whose bits are set, in order and joined.
   * @throws Qcow2Error OUT_OF_RANGE where there is no such bitmap; CORRUPT where it is inconsistent
   */
  async *ranges(name: string, from = 0, to?: number): AsyncGenerator<GuestRange> {
    const state = this.find(name);
    await this.owner.sync();
    yield* this.owner.reader(state).ranges(from, to);
  }

  /** Whether a guest byte's bit is set. */
  async get(name: string, guest: number): Promise<boolean> {
    for await (const range of this.ranges(name, guest, guest + 1)) return range.length > 0;
    return false;
  }

  /** Makes an empty bitmap. @throws Qcow2Error OUT_OF_RANGE, UNSUPPORTED */
  add(name: string, options: BitmapOptions = {}): Promise<void> {
    return this.change((verbs, store) => verbs.addBitmap(store, name, options));
  }

  /** Removes a bitmap, also an inconsistent one. */
  remove(name: string): Promise<void> {
    return this.change((verbs, store) => verbs.removeBitmap(store, name));
  }

  /** Clears a range of bits, or all of them. */
  clear(name: string, range?: GuestRange): Promise<void> {
    return this.change((verbs, store) =>
      range ? verbs.putRanges(store, name, [range], false) : verbs.clearBitmap(store, name),
    );
  }

  /** Sets the bits that a guest range touches. */
  set(name: string, range: GuestRange): Promise<void> {
    return this.change((verbs, store) => verbs.putRanges(store, name, [range], true));
  }

  /** Lets the bitmap follow what is written. */
  enable(name: string): Promise<void> {
    return this.change((verbs, store) => verbs.enableBitmap(store, name, true));
  }

  /** Lets the bitmap be as it is. */
  disable(name: string): Promise<void> {
    return this.change((verbs, store) => verbs.enableBitmap(store, name, false));
  }

  /**
   * Sets the bits of a bitmap that are set in another, of this image or of one of the same size.
   * @throws Qcow2Error OUT_OF_RANGE where the disks differ in size
   */
  async merge(name: string, source: string, from: Bitmaps = this): Promise<void> {
    await this.change(async (verbs, store) => {
      store.find(name);
      const state = from.find(source);
      if (from === this && source === name) return;
      await from.owner.sync();
      await verbs.mergeBitmap(store, name, from.owner.reader(state));
    });
  }

  private find(name: string): BitmapState {
    const state = this.owner.states().find((one) => one.name === name);
    if (!state) throw new Qcow2Error('OUT_OF_RANGE', `Dirty bitmap '${name}' not found`);
    return state;
  }

  private change(
    work: (verbs: typeof import('./bitmap-verbs.ts'), store: BitmapStore) => Promise<void>,
  ): Promise<void> {
    return this.owner.writer().alone(async (parts) => {
      const verbs = await import('./bitmap-verbs.ts');
      await changing(parts, () => work(verbs, parts.bitmaps));
    });
  }
}
