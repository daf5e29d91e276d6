/** COPIED flags from refcounts. The TypeScript twin is the oracle of the random part. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MISUSE } from '../../src/kernels/kernels.ts';
import { rng, SEED } from '../random.ts';
import { agree, bound, bytes, IN, memory, OUT, put, view } from './guarded.ts';

const COPIED = 1n << 63n;

for (const [build, kernels] of bound) {
  const test = suite(`l2CopiedFlags, ${build}`);

  test('sets the flag where the refcount is one, and clears it elsewhere', () => {
    bytes.set([0, 1, 0, 2, 0, 1, 0, 0, 1, 1], IN);
    const hosts = [0x10000n, 0x20000n, 0x30001n, 0x40000n, 0x50000n];
    put(OUT, hosts[0]!, hosts[1]! | COPIED, hosts[2]! | COPIED, hosts[3]!, hosts[4]! | COPIED);
    assert.is(kernels.l2CopiedFlags(OUT, 5, 8, IN, 0, 4), 3);
    const words = hosts.map((_, i) => view.getBigUint64(OUT + i * 8));
    assert.equal(words, [hosts[0]! | COPIED, hosts[1], hosts[2]! | COPIED, hosts[3], hosts[4]]);
  });

  test('leaves the second word of an extended entry alone', () => {
    bytes.set([1, 1], IN);
    put(OUT, 0x10000n, 0n, 0x20000n, 0xffff_ffff_0000_0000n);
    assert.is(kernels.l2CopiedFlags(OUT, 2, 16, IN, 0, 3), 2);
    const words = [0, 1, 2, 3].map((i) => view.getBigUint64(OUT + i * 8));
    assert.equal(words, [0x10000n | COPIED, 0n, 0x20000n | COPIED, 0xffff_ffff_0000_0000n]);
  });

  test('refuses wrong arguments', () => {
    const size = memory.buffer.byteLength;
    assert.is(kernels.l2CopiedFlags(OUT, 1, 8, IN, 0, 7), MISUSE);
    assert.is(kernels.l2CopiedFlags(OUT, 1, 12, IN, 0, 4), MISUSE);
    assert.is(kernels.l2CopiedFlags(size - 8, 2, 8, IN, 0, 4), MISUSE);
    assert.is(kernels.l2CopiedFlags(OUT, 2, 8, size - 2, 0, 4), MISUSE);
    assert.is(kernels.l2CopiedFlags(0x10000, 1, 8, IN, 0, 4), MISUSE);
  });

  test.run();
}

const test = suite('l2CopiedFlags, twin and kernel agree');

test('on random tables', () => {
  const random = rng();
  for (let round = 0; round < 2000; round++) {
    const order = random.below(7);
    const first = random.below(50);
    const count = random.below(100);
    const stride = random.pick([8, 16]);
    const extent = Math.ceil(((first + count) * 2 ** order) / 8);
    for (let i = 0; i < extent; i++) bytes[IN + i] = random.pick([0, 0, 1, 2, random.below(256)]);
    const before = Uint8Array.from({ length: count * stride }, () => random.below(256));
    agree(
      `SEED=${SEED} round ${round}`,
      count * stride,
      (k, out) => k.l2CopiedFlags(out, count, stride, IN, first, order),
      () => bytes.set(before, OUT),
    );
  }
});

test.run();
