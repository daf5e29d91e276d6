/** Sizes as people and QEMU's tools write them. */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/**
 * Three significant digits and a binary unit, as C's `%0.3g` gives: "0.977 GiB", "512 B".
 * The next unit starts at 1000 of this one, so that at most three digits stand before the point.
 */
export function formatSize(bytes: number): string {
  let unit = 0;
  while (unit < UNITS.length - 1 && bytes >= 1000 * 1024 ** unit) unit++;
  return `${threeDigits(bytes / 1024 ** unit)} ${UNITS[unit]}`;
}

/** @param value below 1000; a whole number where it is below 0.97 */
function threeDigits(value: number): string {
  const scale = value >= 100 ? 1 : value >= 10 ? 10 : value >= 1 ? 100 : 1000;
  // The scale has fewer bits than it makes the number's last place grow, so no other number lands
  // on a tie; and a tie goes to the even digit in C: 12.25 MiB are "12.2 MiB".
  const scaled = value * scale;
  const below = Math.floor(scaled);
  const rounded = scaled - below === 0.5 ? below + (below % 2) : Math.round(scaled);
  // Just below the next unit: C writes four digits with an exponent.
  return rounded === 1000 * scale ? '1e+03' : String(rounded / scale);
}

/** All digits of a size, also above 2^53 where `String` would round to the shortest form. */
export function formatBytes(bytes: number): string {
  return Number.isSafeInteger(bytes) ? String(bytes) : BigInt(bytes).toString();
}

/** The digits of a u64, from its unsigned halves. */
export function formatU64(high: number, low: number): string {
  return ((BigInt(high) << 32n) | BigInt(low)).toString();
}

/** A number as C's `%#x` prints it. */
export function cHex(value: number): string {
  return value === 0 ? '0' : `0x${value.toString(16)}`;
}
