/** Images that have to be without a fault. */
import * as assert from 'uvu/assert';
import { checkQcow2 } from './qcow2-check.ts';

/** Asserts that an image has no corruption and no leak, by the independent count. */
export function assertSound(file: Uint8Array, about: string): void {
  const verdict = checkQcow2({
    size: file.length,
    read: (at, into) => {
      const there = file.subarray(at, at + into.length);
      into.set(there);
      into.fill(0, there.length);
      return there.length;
    },
  });
  assert.equal(verdict.corruptions, [], about);
  assert.is(verdict.leaks + verdict.leaksPastEnd, 0, `${about}: leaks`);
  assert.not(verdict.dirty, about);
}
