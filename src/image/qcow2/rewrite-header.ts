/**
 * Rewriting the first cluster of an image in use: header, extensions and the backing file's name
 * change together. What is not known here is kept.
 *
 * One sector can be written so that a power cut leaves the old or the new one. Where more of them
 * change, the first sector does without the rest meanwhile: it has the extensions that matter, and
 * names a copy of the backing file's name at the cluster's end.
 */
import { encodeText } from '../../base/text.ts';
import { parseBackingName, parseHeader, serializeHeader } from '../../format/header.ts';
import { type HeaderClusterParts, serializeHeaderCluster } from '../../format/header-cluster.ts';
import {
  ExtensionType,
  type HeaderExtensions,
  parseHeaderExtensions,
  parseRawExtensions,
} from '../../format/header-extensions.ts';
import { readFully } from '../../storage/read-fully.ts';
import type { MetadataStore } from './metadata-store.ts';

/** What a power cut does not divide. */
const SECTOR = 512;

/**
 * Changes the header, durably. Called with the metadata lock held and caches written.
 * @throws Qcow2Error OUT_OF_RANGE where all of it does not fit into a cluster: nothing has changed
 */
export async function rewriteHeader(
  store: MetadataStore,
  change: (parts: HeaderClusterParts) => HeaderClusterParts,
): Promise<void> {
  const old = new Uint8Array(store.geometry.clusterSize);
  await readFully(store.storage, 0, old);
  const parts = partsOf(old);
  const { bytes } = serializeHeaderCluster(change(parts));
  const changed: number[] = [];
  for (let at = 0; at < old.length; at += SECTOR) {
    const end = at + SECTOR;
    if (!equalBytes(old.subarray(at, end), bytes.subarray(at, end))) changed.push(at);
  }
  const between = changed.length > 1 ? firstSectorBetween(parts, bytes) : undefined;
  if (between) {
    const { sector, name, nameAt } = between;
    if (name.length > 0) await store.writeHeader(nameAt, name);
    await store.writeHeader(0, sector);
    const end = name.length > 0 ? nameAt : bytes.length;
    await store.writeHeader(SECTOR, bytes.slice(SECTOR, end));
    await store.writeHeader(0, bytes.slice(0, SECTOR));
    if (name.length > 0) await store.writeHeader(nameAt, bytes.slice(nameAt));
  } else if (changed.length > 0) {
    const from = changed[0] as number;
    await store.writeHeader(from, bytes.slice(from, (changed.at(-1) as number) + SECTOR));
  }
  store.header = parseHeader(bytes);
}

/** What a header's cluster says; a bitmaps extension that is out of date is kept as it is. */
function partsOf(bytes: Uint8Array): HeaderClusterParts {
  const header = parseHeader(bytes);
  const extensions = parseHeaderExtensions(bytes, header);
  const stale = extensions.bitmapsInconsistent
    ? [...parseRawExtensions(bytes, header)].filter(({ type }) => type === ExtensionType.bitmaps)
    : [];
  const unknown = [...extensions.unknown, ...stale].map((one) => ({
    ...one,
    data: one.data.slice(),
  }));
  const backingName = parseBackingName(bytes, header);
  return { header, extensions: { ...extensions, unknown }, backingName };
}

/** The first sector for the time in between; undefined where it has no room. */
function firstSectorBetween(parts: HeaderClusterParts, next: Uint8Array) {
  const { header, backingName } = parts;
  const name = encodeText(backingName ?? '');
  const nameAt = next.length - Math.ceil(name.length / SECTOR) * SECTOR;
  const isFree = next.subarray(nameAt).every((byte) => byte === 0);
  if (nameAt < 2 * SECTOR || !isFree) return undefined;
  // Names of features are for people.
  const extensions: HeaderExtensions = { ...parts.extensions, featureNames: [] };
  const { bytes } = serializeHeaderCluster({ header, extensions, backingName: undefined });
  if (bytes.subarray(SECTOR).some((byte) => byte !== 0)) return undefined;
  const used = bytes.findLastIndex((byte) => byte !== 0) + 1;
  // Behind the last extension its end is marked by zeros.
  if (used + 8 > SECTOR) return undefined;
  const placed = {
    ...header,
    backingNameOffset: backingName === undefined ? 0 : nameAt,
    backingNameLength: name.length,
  };
  const sector = bytes.slice(0, SECTOR);
  sector.set(serializeHeader(placed));
  return { sector, name, nameAt };
}

function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.every((byte, index) => byte === b[index]);
}
