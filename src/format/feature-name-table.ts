/**
 * Feature name table (header extension 0x6803f857): names for feature bits, so that a reader can
 * say what it lacks.
 *
 *   48-byte entries:  0 type (0 incompatible, 1 compatible, 2 autoclear) · 1 bit · 2–47 name
 */
import { decodeField, encodeText } from '../base/text.ts';
import type { FeatureType } from './feature-bits.ts';

/** One name. `type` is as stored: a number above 2 names a word that is not known here. */
export interface FeatureName {
  readonly type: number;
  readonly bit: number;
  readonly name: string;
}

const ENTRY_BYTES = 48;

/** Parses the extension's data; a last entry that is cut short has what is there, as in QEMU. */
export function parseFeatureNameTable(data: Uint8Array): FeatureName[] {
  const names: FeatureName[] = [];
  for (let at = 0; at + 2 < data.length; at += ENTRY_BYTES) {
    const field = data.subarray(at + 2, at + ENTRY_BYTES);
    names.push({
      type: data[at]!,
      bit: data[at + 1]!,
      name: decodeField(field),
    });
  }
  return names;
}

/** The opposite of `parseFeatureNameTable`; a name is cut to 46 bytes. */
export function serializeFeatureNameTable(names: readonly FeatureName[]): Uint8Array {
  const data = new Uint8Array(names.length * ENTRY_BYTES);
  for (const [index, { type, bit, name }] of names.entries()) {
    const at = index * ENTRY_BYTES;
    data[at] = type;
    data[at + 1] = bit;
    data.set(encodeText(name).subarray(0, ENTRY_BYTES - 2), at + 2);
  }
  return data;
}

/** The name that the table gives a bit, where it has one. */
export function featureName(
  names: readonly FeatureName[],
  type: FeatureType,
  bit: number,
): string | undefined {
  return names.find((entry) => entry.type === type && entry.bit === bit)?.name;
}
