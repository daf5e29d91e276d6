// One run of guest bytes, as l2-run.ts and l2-extended.ts write it for TypeScript. (RUN_BYTES)
//
//   byte 0   u32   kind
//        4   u32   units, >= 1
//        8   f64   host byte offset of the first unit, 0 where it has none
//       16   u32   stored bytes (compressed), else 0
//       20   u32   0

// @ts-ignore: decorator
@inline export const RUN_BYTES: usize = 24;

// @ts-ignore: decorator
@inline export const UNALLOCATED: u32 = 0;
// @ts-ignore: decorator
@inline export const ZERO: u32 = 1;
// @ts-ignore: decorator
@inline export const DATA: u32 = 2;
// @ts-ignore: decorator
@inline export const COMPRESSED_RUN: u32 = 3;
// @ts-ignore: decorator
@inline export const CORRUPT: u32 = 4;

/** Writes a record. `host` is below 2^63: the signed conversion is the fast one. */
// @ts-ignore: decorator
@inline
export function storeRun(out: usize, kind: u32, units: u32, host: u64, bytes: u32): void {
  store<u64>(out, <u64>kind | (<u64>units << 32));
  store<f64>(out, <f64><i64>host, 8);
  store<u64>(out, <u64>bytes, 16);
}

/** Writes two records of one unit each; the lanes of `kinds` are 1 << 32 | kind. */
// @ts-ignore: decorator
@inline
export function storeUnitRuns(out: usize, kinds: v128, hosts: v128, bytes: v128): void {
  v128.store(out, v128.shuffle<u64>(kinds, hosts, 0, 2));
  v128.store(out, v128.shuffle<u64>(bytes, kinds, 0, 3), 16);
  v128.store(out, v128.shuffle<u64>(hosts, bytes, 1, 3), 32);
}
