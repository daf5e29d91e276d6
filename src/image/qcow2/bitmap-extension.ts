/**
 * The bitmaps extension in the header of an image in use: put in, changed or taken out, each in
 * steps of which a power cut may keep any: the image opens, and at worst its bitmaps are not to be
 * believed, which the autoclear bit says.
 */
import { viewOf } from '../../base/be.ts';
import { alignUp } from '../../base/bits.ts';
import { Qcow2Error } from '../../base/errors.ts';
import { type BitmapExtension, serializeBitmapExtension } from '../../format/bitmap-directory.ts';
import { Autoclear } from '../../format/feature-bits.ts';
import { ExtensionType } from '../../format/header-extensions.ts';
import { readFully } from '../../storage/read-fully.ts';
import { type MetadataStore, numberBytes, u64Bytes } from './metadata-store.ts';

/** Type and length, then the extension's data. */
const HEAD_BYTES = 8;
const DATA_BYTES = 24;
const EXTENSION_BYTES = HEAD_BYTES + DATA_BYTES;
/** What a power cut does not divide. */
const SECTOR = 512;

/** Where things are in the header's cluster. */
interface Layout {
  readonly bytes: Uint8Array;
  /** The bitmaps extension; −1: there is none. */
  readonly at: number;
  /** Where the extensions end: the end marker, or the end of their area. */
  readonly end: number;
  /** The backing file's name, 0 and 0 where there is none. */
  readonly nameAt: number;
  readonly nameBytes: number;
}

/**
 * Makes the header name a bitmap directory, durably; `undefined` takes the extension out.
 * @throws Qcow2Error NO_SPACE where the header's cluster has no room for it
 */
export async function writeBitmapExtension(
  store: MetadataStore,
  extension: BitmapExtension | undefined,
): Promise<void> {
  const layout = await readLayout(store);
  if (extension === undefined) {
    if (layout.at >= 0) await takeOut(store, layout);
    return;
  }
  const data = serializeBitmapExtension(extension);
  if (layout.at >= 0) await change(store, layout.at + HEAD_BYTES, data);
  else await putIn(store, layout, data);
}

async function readLayout(store: MetadataStore): Promise<Layout> {
  const bytes = new Uint8Array(store.geometry.clusterSize);
  await readFully(store.storage, 0, bytes);
  const view = viewOf(bytes);
  const nameAt = view.getUint32(12);
  const nameBytes = nameAt === 0 ? 0 : view.getUint32(16);
  const limit = nameAt === 0 ? bytes.length : nameAt;
  let pos = view.getUint32(4) >= 3 ? view.getUint32(100) : 72;
  let at = -1;
  while (pos + HEAD_BYTES <= limit && view.getUint32(pos) !== ExtensionType.end) {
    if (view.getUint32(pos) === ExtensionType.bitmaps) at = pos;
    pos += HEAD_BYTES + alignUp(view.getUint32(pos + 4), 8);
  }
  return { bytes, at, end: pos, nameAt, nameBytes };
}

/** Other data in an extension that is there. */
async function change(store: MetadataStore, at: number, data: Uint8Array): Promise<void> {
  const divided = Math.floor(at / SECTOR) !== Math.floor((at + data.length - 1) / SECTOR);
  if (divided) await setAutoclear(store, false);
  await store.writeHeader(at, data);
  await setAutoclear(store, true);
}

/** A new extension behind the others: first what nobody looks at, then its type and length. */
async function putIn(store: MetadataStore, layout: Layout, data: Uint8Array): Promise<void> {
  const { bytes, end, nameAt, nameBytes } = layout;
  const after = end + EXTENSION_BYTES + HEAD_BYTES;
  if (nameAt !== 0 && nameAt < after) {
    // To a place that touches neither the old name nor the extension.
    const place = Math.max(after, alignUp(nameAt + nameBytes, 8));
    if (place + nameBytes > bytes.length) throw headerFull();
    await store.writeHeader(place, bytes.slice(nameAt, nameAt + nameBytes));
    await store.writeHeader(8, numberBytes(place));
    store.header = { ...store.header, backingNameOffset: place };
  } else if (after > bytes.length && end + EXTENSION_BYTES !== bytes.length) throw headerFull();
  const rest = new Uint8Array(Math.min(after, bytes.length) - end - HEAD_BYTES);
  rest.set(data);
  await store.writeHeader(end + HEAD_BYTES, rest);
  await setAutoclear(store, true);
  const head = new Uint8Array(HEAD_BYTES);
  viewOf(head).setUint32(0, ExtensionType.bitmaps);
  viewOf(head).setUint32(4, DATA_BYTES);
  await store.writeHeader(end, head);
}

function headerFull(): Qcow2Error {
  return new Qcow2Error('NO_SPACE', "the header's cluster has no room for the bitmaps extension");
}

/** What follows it moves up; where nothing does, an end marker in its place says it all. */
async function takeOut(store: MetadataStore, layout: Layout): Promise<void> {
  const { bytes, at, end } = layout;
  const rest = new Uint8Array(end - at - EXTENSION_BYTES + HEAD_BYTES);
  rest.set(bytes.subarray(at + EXTENSION_BYTES, end));
  await setAutoclear(store, false);
  await store.writeHeader(at, rest);
}

async function setAutoclear(store: MetadataStore, on: boolean): Promise<void> {
  const bit = 1 << Autoclear.bitmaps;
  const { high, low } = store.header.autoclear;
  const autoclear = { high, low: (on ? low | bit : low & ~bit) >>> 0 };
  if (autoclear.low === low) return;
  await store.writeHeader(88, u64Bytes(autoclear));
  store.header = { ...store.header, autoclear };
}
