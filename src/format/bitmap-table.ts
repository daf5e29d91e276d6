/**
 * One entry of a bitmap table: where one cluster of bitmap data lives.
 *
 *   55–9 host offset · 0 when the offset is 0: the cluster's bits are all ones · the rest reserved
 */
import { HIGH } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';

/** A cluster of bits: stored, or all zeros or ones. */
export type BitmapTableEntry =
  | { readonly kind: 'zeros' }
  | { readonly kind: 'ones' }
  | { readonly kind: 'data'; readonly host: number };

/** @param file file offset of the table, for the error */
export function parseBitmapTableEntry(
  view: DataView,
  at: number,
  clusterSize: number,
  file = 0,
): BitmapTableEntry {
  const high = view.getUint32(at);
  const low = view.getUint32(at + 4);
  const host = (high & 0x00ff_ffff) * HIGH + ((low & 0xffff_fe00) >>> 0);
  const reserved = (high & 0xff00_0000) !== 0 || (low & 0x1fe) !== 0;
  if (reserved || (host !== 0 && (low & 1) !== 0) || host % clusterSize !== 0) {
    throw new Qcow2Error('CORRUPT', 'invalid bitmap table entry', file + at);
  }
  if (host !== 0) return { kind: 'data', host };
  return { kind: low & 1 ? 'ones' : 'zeros' };
}

/** The opposite of `parseBitmapTableEntry`. */
export function serializeBitmapTableEntry(view: DataView, at: number, entry: BitmapTableEntry) {
  const host = entry.kind === 'data' ? entry.host : 0;
  view.setUint32(at, Math.floor(host / HIGH));
  view.setUint32(at + 4, (host % HIGH) + (entry.kind === 'ones' ? 1 : 0));
}
