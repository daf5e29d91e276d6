/**
 * Extents in the words of `qemu-img map --output=json`, QEMU 7.2.
 *
 *   our kind     present  zero   data   offset
 *   hole         false    true   false  –         depth: the last image that was asked
 *   zero         true     true   false  of the cluster that is kept, if any
 *   data         true     false  true   of the bytes
 *   compressed   true     false  true   –
 *
 * What QEMU tells beyond that is left out of the comparison, holes of the host's files: `zero` of
 * data that lies in one (QEMU looks for them where it takes an image for preallocated), and ranges
 * without data in raw images.
 */
import type { Extent } from '../../src/image/disk.ts';

/** One record of `map`, the parts that are compared. */
export interface MapEntry {
  start: number;
  length: number;
  depth: number;
  present: boolean;
  zero: boolean;
  data: boolean;
  offset?: number;
}

/** What of a chain decides what is compared. */
export interface MapRules {
  /** Where in the chain there are raw images. */
  readonly rawDepths: readonly number[];
}

/** Our extents as `map` would list them. */
export async function mapOf(extents: AsyncIterable<Extent>): Promise<MapEntry[]> {
  const entries: MapEntry[] = [];
  for await (const { guest, length, kind, depth, host } of extents) {
    const data = kind === 'data' || kind === 'compressed';
    const entry: MapEntry = {
      start: guest,
      length,
      depth,
      present: kind !== 'hole',
      zero: !data,
      data,
    };
    if (host !== undefined) entry.offset = host;
    add(entries, entry);
  }
  return entries;
}

/** The output of `qemu-img map`, without what is not compared. */
export function parseMap(json: string, rules: MapRules): MapEntry[] {
  const entries: MapEntry[] = [];
  for (const entry of JSON.parse(json) as MapEntry[]) {
    const { start, length, depth, present, offset } = entry;
    // An empty disk has one entry of no length.
    if (length === 0) continue;
    const data = entry.data || (present && rules.rawDepths.includes(depth));
    const shown: MapEntry = { start, length, depth, present, zero: !data, data };
    if (offset !== undefined) shown.offset = offset;
    add(entries, shown);
  }
  return entries;
}

/** Adds an entry as QEMU does: to the one before where it continues it. */
function add(entries: MapEntry[], entry: MapEntry): void {
  const last = entries.at(-1);
  const joins =
    last !== undefined &&
    last.start + last.length === entry.start &&
    last.depth === entry.depth &&
    last.present === entry.present &&
    last.zero === entry.zero &&
    last.data === entry.data &&
    (last.offset === undefined
      ? entry.offset === undefined
      : last.offset + last.length === entry.offset);
  if (joins) last.length += entry.length;
  else entries.push({ ...entry });
}
