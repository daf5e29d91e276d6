/**
 * Tests of what the C library's calls are for. Where those cannot be had (koffi is an optional
 * package, and for Linux here) they count as skipped. Node only.
 */
import { suite, type Test } from 'uvu';
import { libc } from '../src/storage/native-libc.ts';

/** Whether this machine has the calls. */
export const hasNative = libc() !== undefined;

/** A uvu suite of which every test needs the C library's calls. */
export function nativeSuite(name: string): Test {
  const test = suite(name);
  if (hasNative) return test;
  console.error(`${name}: koffi is not installed, or not for this machine`);
  return Object.assign((title: string) => test.skip(title), test);
}
