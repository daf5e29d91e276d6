/**
 * One standard 8-byte L2 entry: where the bytes of one guest cluster live.
 *
 *   63 copied · 62 compressed · 61–0 descriptor
 *   standard    55–9 host offset, 0 reads-as-zero (version 3), the rest reserved
 *   compressed  low x bits host byte offset, above them sectors − 1;  x = 62 − (clusterBits − 8)
 *
 * Reading in bulk goes through the kernel `l2Runs`; this is the definition, one entry at a time.
 */
import { HIGH } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';
import {
  parseCompressedDescriptor,
  serializeCompressedDescriptor,
} from './compressed-descriptor.ts';

/** A decoded entry. `host` is a byte offset in the image file, or in the external data file. */
export type L2Entry =
  | { readonly kind: 'unallocated' }
  /** `host` 0: no cluster is kept. */
  | { readonly kind: 'zero'; readonly host: number; readonly copied: boolean }
  | { readonly kind: 'data'; readonly host: number; readonly copied: boolean }
  | { readonly kind: 'compressed'; readonly host: number; readonly length: number };

/** What an entry's meaning depends on beside its bits. */
export interface L2Context {
  readonly clusterBits: number;
  readonly version: 2 | 3;
  /** Clusters live in an external data file: offset 0 with COPIED is an allocated cluster. */
  readonly dataFile: boolean;
  /** Places pass that no cluster can be at. */
  readonly unaligned?: boolean;
  /** File offset of the table, for errors. */
  readonly file?: number;
}

const COMPRESSED = 0x4000_0000;
const RESERVED_HIGH = 0x3f00_0000;
const RESERVED_LOW = 0x0000_01fe;

/** @throws Qcow2Error CORRUPT for anything that the format forbids */
export function parseL2Entry(view: DataView, at: number, context: L2Context): L2Entry {
  const high = view.getUint32(at);
  const low = view.getUint32(at + 4);
  const { clusterBits, version, dataFile, file = 0 } = context;
  if (high & COMPRESSED) {
    return {
      kind: 'compressed',
      ...parseCompressedDescriptor(high, low, clusterBits, file + at),
    };
  }
  const reservedLow = version === 2 ? RESERVED_LOW | 1 : RESERVED_LOW;
  if (high & RESERVED_HIGH || low & reservedLow) {
    throw new Qcow2Error('CORRUPT', 'reserved bits set in an L2 entry', file + at);
  }
  const host = (high & 0x00ff_ffff) * HIGH + ((low & 0xffff_fe00) >>> 0);
  if (host % 2 ** clusterBits !== 0 && !context.unaligned) {
    throw new Qcow2Error('CORRUPT', 'cluster offset is not cluster aligned', file + at);
  }
  const copied = high >= 0x8000_0000;
  if (low & 1) return { kind: 'zero', host, copied };
  if (host !== 0 || (dataFile && copied)) return { kind: 'data', host, copied };
  return { kind: 'unallocated' };
}

/** The opposite of `parseL2Entry`. */
export function serializeL2Entry(
  view: DataView,
  at: number,
  entry: L2Entry,
  clusterBits: number,
): void {
  if (entry.kind === 'compressed') {
    const { high, low } = serializeCompressedDescriptor(entry, clusterBits);
    view.setUint32(at, high);
    view.setUint32(at + 4, low);
    return;
  }
  const host = entry.kind === 'unallocated' ? 0 : entry.host;
  const copied = entry.kind !== 'unallocated' && entry.copied;
  view.setUint32(at, (copied ? 0x8000_0000 : 0) + Math.floor(host / HIGH));
  view.setUint32(at + 4, (host % HIGH) + (entry.kind === 'zero' ? 1 : 0));
}
