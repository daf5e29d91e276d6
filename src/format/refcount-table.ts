/**
 * One 8-byte refcount table entry: where a refcount block lies.
 *
 *   63–9 host offset, cluster aligned; 0: no block, all its refcounts are 0 · 8–0 reserved
 */
import { HIGH } from '../base/bits.ts';
import { Qcow2Error } from '../base/errors.ts';
import { cHex } from '../base/sizes.ts';

/** Offsets from here on are neither exact nor in any file. */
const HOST_END = 2 ** 62;

/** The offset that an entry says, whether a block can be there or not. */
export function parseRefcountTableEntry(view: DataView, at: number): number {
  return view.getUint32(at) * HIGH + ((view.getUint32(at + 4) & ~511) >>> 0);
}

/**
 * Looks at an entry that is about to be used.
 * @param file file offset of the table, for the error
 * @throws Qcow2Error CORRUPT where the offset is not cluster aligned; IO where no file reaches
 */
export function checkRefcountBlockOffset(
  host: number,
  { index, clusterSize, file }: { index: number; clusterSize: number; file: number },
): void {
  const at = file + index * 8;
  if (host % clusterSize !== 0) {
    const message = `Refblock offset ${cHex(host)} unaligned (reftable index: ${cHex(index)})`;
    throw new Qcow2Error('CORRUPT', message, at);
  }
  if (host >= HOST_END) throw new Qcow2Error('IO', 'Refcount block beyond the end of any file', at);
}

/** The opposite of `parseRefcountTableEntry`. */
export function serializeRefcountTableEntry(view: DataView, at: number, host: number): void {
  view.setUint32(at, Math.floor(host / HIGH));
  view.setUint32(at + 4, host % HIGH);
}
