/**
 * What L1 and L2 tables refer to, in bulk: the tables of an L1 table one by one, and the clusters
 * of an L2 slice as runs of entries whose clusters follow each other.
 */

import { settled } from '../../base/awaitable.ts';
import { viewOf } from '../../base/be.ts';
import { alignDown } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { parseL1Offset } from '../../format/l1-entry.ts';
import { L2Flags, RUN_BYTES, RunKind } from '../../kernels/kernels.ts';
import { entryCorruption, noticing } from './corruption.ts';
import type { MetadataStore } from './metadata-store.ts';

/** Bytes of scratch memory for each entry of a slice: a run record, a word, a pair of u32. */
export const SCRATCH_BYTES_PER_ENTRY = RUN_BYTES + 8 + 8;

/** Entries of a slice that refer to clusters one after another in the file. */
export interface ReferenceRun {
  /** Index in the slice, and number, of entries. */
  readonly entry: number;
  readonly entries: number;
  /** Where their clusters start in the file. A compressed one: the first sector of its stream. */
  readonly host: number;
  /** Bytes of file that they refer to. */
  readonly length: number;
  readonly compressed: boolean;
}

/**
 * The L2 tables of an L1 table: their index and file offset, in order.
 * @param at file offset of the L1 table, for the error
 * @throws Qcow2Error CORRUPT for an entry that the format forbids
 */
export function* l2TablesOf(
  store: MetadataStore,
  l1: Uint8Array,
  at: number,
): Generator<{ readonly index: number; readonly host: number }, void, undefined> {
  const view = viewOf(l1);
  for (let index = 0; index * 8 < l1.length; index++) {
    const host = noticing(() => parseL1Offset(view, index * 8, store.geometry.clusterSize, at));
    if (host !== 0) yield { index, host };
  }
}

/** Slices of one L2 table, each loaded when it comes. */
export async function* slicesOf(
  store: MetadataStore,
  table: number,
): AsyncGenerator<number, void, undefined> {
  const { l2, geometry } = store;
  for (let slice = table; slice < table + geometry.clusterSize; slice += l2.sliceBytes) {
    const loaded = l2.load(slice, table);
    if (!settled(loaded)) await loaded;
    yield slice;
  }
}

/**
 * What a loaded slice refers to.
 * @throws Qcow2Error CORRUPT, `at` = offset of the entry
 */
export function referencesOf(store: MetadataStore, slice: number): ReferenceRun[] {
  const { geometry, l2, scratch, header } = store;
  const { clusterSize, clusterBits, extendedL2, l2EntryBytes } = geometry;
  const entries = l2.sliceBytes / l2EntryBytes;
  const { view, at } = l2.bytesAt(slice);
  let table = view.byteOffset + at;
  const records = scratch.at;
  // The first words of extended entries say all about places; there bit 0 says nothing.
  const strict = header.version === 2 || extendedL2;
  if (extendedL2) {
    table = records + entries * RUN_BYTES;
    const words = new DataView(scratch.bytes.buffer, table, entries * 8);
    for (let entry = 0; entry < entries; entry++) {
      words.setUint32(entry * 8, view.getUint32(at + entry * 16));
      words.setUint32(entry * 8 + 4, view.getUint32(at + entry * 16 + 4));
    }
  }
  const flags = strict ? L2Flags.version2 : 0;
  const count = scratch.kernels.l2Runs(table, entries, clusterBits, flags, records, entries);
  const record = new DataView(scratch.bytes.buffer, records, count * RUN_BYTES);
  const runs: ReferenceRun[] = [];
  let entry = 0;
  for (let pos = 0; pos < count * RUN_BYTES; pos += RUN_BYTES) {
    const kind = record.getUint32(pos, true);
    const units = record.getUint32(pos + 4, true);
    const host = record.getFloat64(pos + 8, true);
    if (kind === RunKind.corrupt) {
      const at = slice + entry * l2EntryBytes;
      const tableAt = alignDown(slice, clusterSize);
      const where = { table: tableAt, index: (at - tableAt) / l2EntryBytes, at };
      const address = l2.bytesAt(slice).at + entry * l2EntryBytes;
      const known = entryCorruption(view, address, { ...where, geometry, flags: 0 });
      throw known ?? new Qcow2Error('CORRUPT', 'corrupt L2 entry', at);
    }
    if (kind === RunKind.compressed) {
      // Whole sectors, as the descriptor counts them.
      const start = host - (host % 512);
      const length = host + record.getUint32(pos + 16, true) - start;
      runs.push({ entry, entries: 1, host: start, length, compressed: true });
    } else if (host !== 0) {
      runs.push({ entry, entries: units, host, length: units * clusterSize, compressed: false });
    }
    entry += units;
  }
  return runs;
}

/** Where the kernels may write pairs of u32 while runs are worked on, and how many. */
export function scratchPairs(store: MetadataStore): { readonly at: number; readonly max: number } {
  const { l2, scratch, geometry } = store;
  const entries = l2.sliceBytes / geometry.l2EntryBytes;
  return { at: scratch.at + entries * (RUN_BYTES + 8), max: entries };
}
