/**
 * One 8-byte L1 entry: where an L2 table lies.
 *
 *   63 copied (the table's refcount is exactly 1) · 55–9 host offset · the rest reserved
 */
import { HIGH } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';
import { cHex } from '../base/sizes.ts';

/** `host` 0: no L2 table, all that it would map is unallocated. */
export interface L1Entry {
  readonly host: number;
  readonly copied: boolean;
}

/**
 * Reads the host offset of an L1 entry, 0 where there is none. Bits that the format reserves are
 * ignored, as QEMU's reader does; `check` is what reports them.
 * @param file file offset of the L1 table, for the error
 * @throws Qcow2Error CORRUPT where the offset is not cluster aligned
 */
export function parseL1Offset(view: DataView, at: number, clusterSize: number, file = 0): number {
  const host = (view.getUint32(at) & 0x00ff_ffff) * HIGH + ((view.getUint32(at + 4) & ~511) >>> 0);
  if (host % clusterSize !== 0) {
    const message = `L2 table offset ${cHex(host)} unaligned (L1 index: ${cHex(at / 8)})`;
    throw new Qcow2Error('CORRUPT', message, file + at);
  }
  return host;
}

/** The whole entry. */
export function parseL1Entry(view: DataView, at: number, clusterSize: number, file = 0): L1Entry {
  const host = parseL1Offset(view, at, clusterSize, file);
  return { host, copied: view.getInt32(at) < 0 };
}

/** The opposite of `parseL1Entry`. */
export function serializeL1Entry(view: DataView, at: number, entry: L1Entry): void {
  view.setUint32(at, (entry.copied ? 0x8000_0000 : 0) + Math.floor(entry.host / HIGH));
  view.setUint32(at + 4, entry.host % HIGH);
}
