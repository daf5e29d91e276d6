/** What is said of a disk that was salvaged. */
import { alignUp } from '../base/bits.ts';
import type { ConvertResult } from '../convert/options.ts';
import type { LostRange } from '../convert/runner.ts';
import type { Disk } from '../image/disk.ts';
import type { Host } from './command.ts';

const SECTOR_BYTES = 512;

/**
 * Says of a disk that was salvaged what could not be asked about, and what is missing, sector by
 * sector. As qemu-img it goes through the disks twice, first to see how much there is to copy.
 * @param unit target bytes that are copied as a whole, and are asked about where they begin
 */
export function warnOfLost(
  { program, note }: Host,
  disks: readonly Disk[],
  { result, unit }: { readonly result: ConvertResult; readonly unit: number | undefined },
): void {
  const warn = (what: string, at: number, why: string) =>
    note(`${program}: warning: error while reading ${what} ${placeIn(disks, at)}: ${why}\n`);
  const unmapped = () => sectors(result.unmapped, 'block status at offset', unit);
  for (const { what, at, why } of unmapped()) warn(what, at, why);
  const [asked, read] = [unmapped(), sectors(result.lost, 'offset')];
  let [first, second] = [asked.next(), read.next()];
  while (!first.done || !second.done) {
    const isAsked = !first.done && (second.done || first.value.at <= second.value.at);
    const { what, at, why } = (isAsked ? first : second).value as LostSector;
    warn(what, at, why);
    if (isAsked) first = asked.next();
    else second = read.next();
  }
}

/** What is told of one sector. */
interface LostSector {
  readonly what: string;
  readonly at: number;
  readonly why: string;
}

function* sectors(
  ranges: readonly LostRange[],
  what: string,
  unit = SECTOR_BYTES,
): Generator<LostSector, undefined> {
  for (const { guest, length, why } of ranges) {
    for (let at = alignUp(guest, unit); at < guest + length; at += unit) yield { what, at, why };
  }
}

/** A place in the disk that several make, one after another, as that one counts it. */
function placeIn(disks: readonly Disk[], at: number): number {
  let start = 0;
  for (const { size } of disks) {
    if (at < start + size) break;
    start += size;
  }
  return at - start;
}
