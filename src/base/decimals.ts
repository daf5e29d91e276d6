/** Decimal fractions as C's `%.Nf` prints them. */

/**
 * A number with so many digits behind the point, one at least. Of two texts that are equally near,
 * C takes the one whose last digit is even, and `toFixed` the larger.
 */
export function formatFixed(value: number, digits: number): string {
  // Only odd multiples of this power of two end, in decimal, with a 5 one digit further on.
  if (Math.abs(value * 2 ** (digits + 1)) % 2 !== 1) return value.toFixed(digits);
  const below = value.toFixed(digits + 1).slice(0, -1);
  return /[02468]$/.test(below) ? below : value.toFixed(digits);
}
