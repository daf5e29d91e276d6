/** Reading bitmaps: slice by slice of their bits, and as the guest ranges that are set. */
import { settled } from '../../base/awaitable.ts';
import { Qcow2Error } from '../../base/errors.ts';
import type { Region } from '../../kernels/arena.ts';
import { readFully } from '../../storage/read-fully.ts';
import type { Storage } from '../../storage/storage.ts';
import { type BitmapState, bitmapSliceBytes } from './bitmap-state.ts';

/** A guest range, bytes. */
export interface GuestRange {
  readonly guest: number;
  readonly length: number;
}

/** Some bits of a bitmap. */
export interface BitmapSlice {
  /** Index in the bitmap of the first: a multiple of 4096. */
  readonly first: number;
  readonly bits: number;
  /** The bits, good until the next slice is asked for; undefined: all of them are set. */
  readonly bytes: Uint8Array | undefined;
}

/** A bitmap whose bits can be read. */
export interface BitmapSource {
  /** Bytes of the disk that it is about. */
  readonly diskSize: number;
  /** Guest bytes of one bit. */
  readonly granularity: number;
  /** Its slices in order; those of clusters that are clear are left out. */
  slices(): AsyncIterable<BitmapSlice>;
}

/** Pairs of u32 that the runs of one slice are collected in. */
const PAIRS = 4096;

/** Kernel memory that a reader of bitmaps needs. */
export function bitmapReaderBytes(clusterSize: number): number {
  return bitmapSliceBytes(clusterSize) + PAIRS * 8;
}

/** Reads one bitmap from the file. */
export class BitmapReader implements BitmapSource {
  constructor(
    private readonly storage: Storage,
    private readonly state: BitmapState,
    private readonly image: { readonly clusterSize: number; readonly size: number },
    private readonly scratch: Region,
  ) {
    if (!state.inconsistent) return;
    const message = `Bitmap '${state.name}' is inconsistent and cannot be used`;
    throw new Qcow2Error('CORRUPT', message, state.entry.tableOffset);
  }

  get diskSize(): number {
    return this.image.size;
  }

  get granularity(): number {
    return this.state.granularity;
  }

  async *slices(): AsyncGenerator<BitmapSlice, void, undefined> {
    const { state, storage } = this;
    const { clusterSize, size } = this.image;
    const total = state.bitsFor(size);
    const sliceBytes = bitmapSliceBytes(clusterSize);
    await state.loadTable(storage);
    for (let index = 0; index < state.entry.tableEntries; index++) {
      const entry = state.tableEntry(index, clusterSize);
      const first = index * clusterSize * 8;
      if (entry.kind === 'zeros' || first >= total) continue;
      if (entry.kind === 'ones') {
        yield { first, bits: Math.min(clusterSize * 8, total - first), bytes: undefined };
        continue;
      }
      for (let at = 0; at < clusterSize && first + at * 8 < total; at += sliceBytes) {
        const bits = Math.min(sliceBytes * 8, total - first - at * 8);
        const bytes = new Uint8Array((bits + 7) >> 3);
        const read = readFully(storage, entry.host + at, bytes);
        if (!settled(read)) await read;
        yield { first: first + at * 8, bits, bytes };
      }
    }
  }

  /** The guest ranges between two offsets whose bits are set, in order and joined. */
  async *ranges(from = 0, to = this.image.size): AsyncGenerator<GuestRange, void, undefined> {
    let start = -1;
    let end = -1;
    for await (const [first, last] of this.runs(from, to)) {
      if (first === end) {
        end = last;
        continue;
      }
      if (end > start) yield { guest: start, length: end - start };
      start = first;
      end = last;
    }
    if (end > start) yield { guest: start, length: end - start };
  }

  private async *runs(from: number, to: number): AsyncGenerator<[number, number]> {
    const { granularity } = this;
    const size = Math.min(to, this.image.size);
    const clip = (first: number, bits: number): [number, number] => [
      Math.max(from, first * granularity),
      Math.min(size, (first + bits) * granularity),
    ];
    for await (const { first, bits, bytes } of this.slices()) {
      if (first * granularity >= size) return;
      if ((first + bits) * granularity <= from) continue;
      if (!bytes) {
        yield clip(first, bits);
        continue;
      }
      for (let at = 0; at < bits; ) {
        // Nothing is kept in the scratch memory while others may use it.
        const runs = this.runsOf(bytes, at, bits - at);
        for (const [run, length] of runs) {
          const [start, end] = clip(first + run, length);
          if (end > start) yield [start, end];
          at = run + length;
        }
        if (runs.length < PAIRS) break;
      }
    }
  }

  private runsOf(bytes: Uint8Array, first: number, bits: number): [number, number][] {
    const { scratch } = this;
    scratch.bytes.set(bytes);
    const out = scratch.at + scratch.length - PAIRS * 8;
    const count = scratch.kernels.bitmapRuns(scratch.at, first, bits, out, PAIRS);
    const view = new DataView(scratch.bytes.buffer, out, count * 8);
    return Array.from({ length: count }, (_, i) => [
      view.getUint32(i * 8, true),
      view.getUint32(i * 8 + 4, true),
    ]);
  }
}
