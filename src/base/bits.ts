/**
 * 32-bit masks and rounding division. JavaScript's bitwise operators bind loosely and work on
 * signed numbers; what needs either goes through here.
 */

/** 2^32: what one step of the high half of a u64 is worth. */
export const HIGH = 0x1_0000_0000;

/** `a & b` as an unsigned number. */
export function and32(a: number, b: number): number {
  return (a & b) >>> 0;
}

/** True when bit `bit` (0–31) of `word` is set. */
export function hasBit(word: number, bit: number): boolean {
  return ((word >>> bit) & 1) === 1;
}

/** Quotient rounded down, exact for any two safe integers with `b > 0`. */
export function divFloor(a: number, b: number): number {
  return (a - (a % b)) / b;
}

/** Quotient rounded up, exact for any two safe integers with `b > 0`. */
export function divCeil(a: number, b: number): number {
  const rest = a % b;
  return rest === 0 ? a / b : (a - rest) / b + 1;
}

/** `a` rounded down to a multiple of `unit`. */
export function alignDown(a: number, unit: number): number {
  return a - (a % unit);
}

/** `a` rounded up to a multiple of `unit`. */
export function alignUp(a: number, unit: number): number {
  const rest = a % unit;
  return rest === 0 ? a : a - rest + unit;
}
