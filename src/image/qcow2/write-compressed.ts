/**
 * Writing compressed clusters: each is packed behind the last one, byte by byte. One that does not
 * shrink is written as it is.
 */
import { settled } from '../../base/awaitable.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { refuseCompressed } from './encryption.ts';
import { freeCell } from './free-cells.ts';
import { writeRange } from './write.ts';
import { needInside, type WriteParts, withRange } from './write-parts.ts';

/** Writes whole clusters; the disk's last one may be cut short, and is filled with zeros. */
export async function writeCompressedGuest(
  parts: WriteParts,
  range: { readonly guest: number; readonly diskSize: number },
  bytes: Uint8Array,
): Promise<void> {
  const { store } = parts;
  const { clusterSize } = store.geometry;
  if (parts.encryption) refuseCompressed();
  if (store.hasDataFile) {
    throw new Qcow2Error(
      'UNSUPPORTED',
      'images with an external data file hold no compressed data',
      undefined,
      undefined,
      range.guest,
    );
  }
  const end = range.guest + bytes.length;
  if (range.guest % clusterSize !== 0 || (end % clusterSize !== 0 && end !== range.diskSize)) {
    throw new Qcow2Error('OUT_OF_RANGE', 'compressed writes are whole clusters', range.guest);
  }
  // The whole range at once: a request that overlaps it comes before all of it, or after.
  await withRange(parts, { guest: range.guest, length: bytes.length }, async () => {
    needInside(parts, { guest: range.guest, length: bytes.length });
    const marked = parts.bitmaps.mark(range.guest, bytes.length);
    if (!settled(marked)) await marked;
    for (let done = 0; done < bytes.length; done += clusterSize) {
      const part = bytes.subarray(done, Math.min(bytes.length, done + clusterSize));
      await writeOne(parts, range.guest + done, part);
    }
  });
}

async function writeOne(parts: WriteParts, guest: number, part: Uint8Array): Promise<void> {
  const { store } = parts;
  const stream = parts.compressor.compress(part);
  if (stream === undefined) {
    await writeRange(parts, guest, part);
    return;
  }
  const host = await store.lock.run(async () => {
    // The L2 table first, as QEMU does: the layout of the file is the same.
    await parts.tables.findForWrite(guest);
    const at = await parts.allocator.bytes(stream.length, hostMax(store.geometry.clusterBits));
    await store.order.entryAfterRefcount();
    return at;
  });
  try {
    store.overlap.check(host, stream.length, 'data');
    if (store.storage.announce) await store.storage.announce('write_compressed');
    const written = store.storage.write(host, stream);
    if (!settled(written)) await written;
  } catch (cause) {
    await store.lock.run(() => parts.allocator.free(host, stream.length)).catch(() => {});
    throw cause;
  }
  await store.lock.run(() => link(parts, guest, host, stream.length));
}

/** First host offset that a descriptor cannot hold. */
function hostMax(clusterBits: number): number {
  return Math.min(2 ** (62 - (clusterBits - 8)), 2 ** 53);
}

async function link(parts: WriteParts, guest: number, host: number, length: number): Promise<void> {
  const { store, tables } = parts;
  await store.order.entryAfterRefcount();
  store.order.entryAfterData();
  const place = await tables.findForWrite(guest);
  const old = tables.read(place);
  tables.write(place, { kind: 'compressed', host, length });
  parts.reader.forget();
  await freeCell(parts, old);
}
