/**
 * What a disk may read as when not everything that was asked of it is known to have happened: each
 * byte is either certain, or one of several.
 */

interface Change {
  readonly at: number;
  readonly bytes: Uint8Array;
  /** The change may have left anything at all. */
  readonly anything: boolean;
}

/** How much a doubtful byte may be: one of those that it was or was to be, or anything. */
export type Doubt = 'known' | 'any';

/** A disk's content, in part in doubt. */
export class DoubtfulBytes {
  private readonly changes: Change[] = [];
  /** Sizes that the disk may have. */
  readonly sizes: Set<number>;

  /** @param certain what it read as when all was known */
  constructor(
    private readonly certain: Uint8Array,
    size: number,
  ) {
    this.sizes = new Set([size]);
  }

  /** These bytes may be there by now, or zeros, or what was there before. */
  maybe(at: number, bytes: Uint8Array, doubt: Doubt = 'known'): void {
    this.changes.push({ at, bytes, anything: doubt === 'any' });
  }

  /** What is wrong with what a disk reads as; empty where nothing is. */
  mismatch(actual: Uint8Array): string {
    if (!this.sizes.has(actual.length)) {
      return `the disk has ${actual.length} bytes, not ${[...this.sizes].join(' or ')}`;
    }
    const { certain } = this;
    for (let at = 0; at < actual.length; at++) {
      if (actual[at] === (certain[at] ?? 0)) continue;
      const candidates = this.changes.filter((c) => at >= c.at && at < c.at + c.bytes.length);
      const fits = candidates.some((c) => c.anything || c.bytes[at - c.at] === actual[at]);
      if (fits || (candidates.length > 0 && actual[at] === 0)) continue;
      const wanted = [certain[at] ?? 0, ...candidates.map((c) => c.bytes[at - c.at])];
      const what = candidates.length > 0 ? ' (changed lately)' : '';
      const where = `byte at 0x${at.toString(16)}`;
      return `${where} is ${actual[at]}, not ${[...new Set(wanted)].join(' or ')}${what}`;
    }
    return '';
  }
}
