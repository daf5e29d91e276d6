/** The order that QEMU's tools go through names in: that of its hash table (qobject/qdict.c). */
import { encodeText } from '../base/text.ts';

/** Sorts names by the table's buckets; who comes later stands before the others of its bucket. */
export function inTableOrder(names: readonly string[]): string[] {
  return names
    .map((name, index) => ({ name, index, bucket: bucketOf(name) }))
    .sort((a, b) => a.bucket - b.bucket || b.index - a.index)
    .map(({ name }) => name);
}

const BUCKETS = 512;

function bucketOf(name: string): number {
  const bytes = encodeText(name);
  let value = Math.imul(0x238f13af, bytes.length);
  for (const [index, byte] of bytes.entries()) value += byte << ((index * 5) % 24);
  const hash = (Math.imul(1103515243, value) + 12345) >>> 0;
  return hash % BUCKETS;
}
