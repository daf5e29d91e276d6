/** The table of internal snapshots as QEMU's tools print it for people. */

import type { U64 } from '../base/be.ts';
import { formatSize } from '../base/sizes.ts';
import { byteLength } from '../base/text.ts';
import type { Snapshot } from '../format/snapshot-table.ts';

/** A u64 as one number that is exact. */
export function bigOf({ high, low }: U64): bigint {
  return (BigInt(high) << 32n) + BigInt(low);
}

/** The lines of the table: a header, and one for each snapshot. */
export function snapshotList(snapshots: readonly Snapshot[]): string[] {
  const header = `${'ID'.padEnd(10)}${'TAG'.padEnd(17)}${'VM SIZE'.padStart(8)}\
${'DATE'.padStart(20)}${'VM CLOCK'.padStart(13)}${'ICOUNT'.padStart(11)}`;
  return [header, ...snapshots.map(snapshotLine)];
}

function snapshotLine(snapshot: Snapshot): string {
  const { id, name, vmStateBytes, dateSeconds, clock } = snapshot;
  const columns = [
    padBytes(id, 9),
    ` ${padBytes(name, 16)}`,
    ` ${formatSize(vmStateBytes).padStart(8)}`,
    dateText(dateSeconds).padStart(20),
    clockText(bigOf(clock)).padStart(13),
    (icountOf(snapshot)?.toString() ?? '').padStart(11),
  ];
  return columns.join('');
}

/** Instructions executed when the snapshot was taken; undefined where they were not counted. */
export function icountOf({ icount }: Snapshot): bigint | undefined {
  const count = icount && BigInt.asIntN(64, bigOf(icount));
  return count === -1n ? undefined : count;
}

/** Pads as C's printf does, which counts bytes and not characters. */
function padBytes(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - byteLength(text)));
}

/** The host's local time, as people who look for a snapshot remember it. */
function dateText(seconds: number): string {
  const date = new Date(seconds * 1000);
  const two = (value: number) => String(value).padStart(2, '0');
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join('-');
  return `${day} ${[date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(':')}`;
}

/** Guest time since boot: hours, minutes, seconds and milliseconds. */
function clockText(nanoseconds: bigint): string {
  const seconds = nanoseconds / 1_000_000_000n;
  const two = (value: bigint) => String(value).padStart(2, '0');
  const millis = String((nanoseconds / 1_000_000n) % 1000n).padStart(3, '0');
  return `${two(seconds / 3600n)}:${two((seconds / 60n) % 60n)}:${two(seconds % 60n)}.${millis}`;
}
