/** Sizes as people and QEMU's tools write them. */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/**
 * Three significant digits and a binary unit, as C's `%0.3g` gives: "0.977 GiB", "512 B".
 * The next unit starts at 1000 of this one, so that at most three digits stand before the point.
 */
export function formatSize(bytes: number): string {
  let unit = 0;
  while (unit < UNITS.length - 1 && bytes >= 1000 * 1024 ** unit) unit++;
  const value = (bytes / 1024 ** unit).toPrecision(3);
  // C writes 999.9 as "1e+03" with three digits; toPrecision says "1.00e+3".
  const text = value.includes('e') ? '1e+03' : String(Number(value));
  return `${text} ${UNITS[unit]}`;
}

/** All digits of a size, also above 2^53 where `String` would round to the shortest form. */
export function formatBytes(bytes: number): string {
  return Number.isSafeInteger(bytes) ? String(bytes) : BigInt(bytes).toString();
}
