/**
 * One 8-byte refcount table entry: where a refcount block lies.
 *
 *   63–9 host offset, cluster aligned; 0: no block, all its refcounts are 0 · 8–0 reserved
 */
import { HIGH } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';

/** @param file file offset of the table, for the error */
export function parseRefcountTableEntry(
  view: DataView,
  at: number,
  clusterSize: number,
  file = 0,
): number {
  const high = view.getUint32(at);
  const low = view.getUint32(at + 4) & ~511;
  const host = high * HIGH + (low >>> 0);
  if (host % clusterSize !== 0 || high >= 0x4000_0000) {
    const index = (at / 8).toString(16);
    const message = `Refblock offset 0x${host.toString(16)} unaligned (reftable index: 0x${index})`;
    throw new Qcow2Error('CORRUPT', message, file + at);
  }
  return host;
}

/** The opposite of `parseRefcountTableEntry`. */
export function serializeRefcountTableEntry(view: DataView, at: number, host: number): void {
  view.setUint32(at, Math.floor(host / HIGH));
  view.setUint32(at + 4, host % HIGH);
}
