/** Compressed-cluster descriptors. The TypeScript twin is the oracle of the random part. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MISUSE } from '../../src/kernels/kernels.ts';
import { rng, SEED } from '../random.ts';
import { agree, arm, bound, bytes, IN, memory, OUT, put, view } from './guarded.ts';

const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;

for (const [build, kernels] of bound) {
  const test = suite(`compressedDescriptors, ${build}`);

  for (let bits = 9; bits <= 21; bits++) {
    const x = BigInt(70 - bits);
    const parse = (stride: number, ...entries: bigint[]) => {
      entries.forEach((entry, i) => {
        put(IN + i * stride, entry, ...(stride === 16 ? [~0n] : []));
      });
      arm(entries.length * 16);
      const found = kernels.compressedDescriptors(IN, entries.length, stride, bits, OUT);
      const records = entries.map((_, i) => [
        view.getFloat64(OUT + i * 16, true),
        view.getUint32(OUT + i * 16 + 8, true),
        view.getUint32(OUT + i * 16 + 12, true),
      ]);
      return [found, ...records];
    };

    for (const stride of [8, 16]) {
      test(`${2 ** bits}, stride ${stride}: what is not compressed leaves zeros`, () => {
        const none = [0, 0, 0];
        assert.equal(parse(stride, 0n, ~COMPRESSED, 1n, COPIED), [0, none, none, none, none]);
      });

      test(`${2 ** bits}, stride ${stride}: offset, bytes to the end of the last sector`, () => {
        const most = (1n << (62n - x)) - 1n;
        const sectors = Number(most) + 1;
        assert.equal(
          parse(
            stride,
            COMPRESSED,
            COMPRESSED | COPIED | 1n,
            COMPRESSED | 511n | (1n << x),
            COMPRESSED | (most << x) | 0x12345678abn,
            COMPRESSED | (most << x) | ((1n << 49n) - 1n),
          ),
          [
            5,
            [0, 512, 1],
            [1, 511, 1],
            [511, 513, 1],
            [0x12345678ab, sectors * 512 - 0xab, 1],
            [2 ** 49 - 1, sectors * 512 - 511, 1],
          ],
        );
      });
    }

    test(`${2 ** bits}: an offset that no reader may follow is flagged, not counted`, () => {
      const offsets = [2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 54n + 512n, 2n ** 55n - 1n];
      offsets.push(2n ** 56n - 512n, 2n ** 56n - 1n, 2n ** 56n, 2n ** 60n + 512n);
      for (const host of offsets) {
        if (host >= 1n << x) continue;
        const good = host < 2n ** 53n || (host % 512n === 0n && host < 2n ** 56n);
        const record = good ? [Number(host), 512 - Number(host % 512n), 1] : [0, 0, 2];
        assert.equal(parse(8, COMPRESSED | host), [good ? 1 : 0, record], `host ${host}`);
      }
    });
  }

  test('refuses wrong arguments, and touches nothing', () => {
    arm(16);
    const size = memory.buffer.byteLength;
    assert.is(kernels.compressedDescriptors(IN, 1, 8, 8, OUT), MISUSE);
    assert.is(kernels.compressedDescriptors(IN, 1, 8, 22, OUT), MISUSE);
    assert.is(kernels.compressedDescriptors(IN, 1, 0, 16, OUT), MISUSE);
    assert.is(kernels.compressedDescriptors(IN, 1, 24, 16, OUT), MISUSE);
    assert.is(kernels.compressedDescriptors(size - 16, 2, 16, 16, OUT), MISUSE);
    assert.is(kernels.compressedDescriptors(IN, 0xffff_ffff, 16, 16, OUT), MISUSE);
    assert.is(kernels.compressedDescriptors(IN, 2, 8, 16, size - 16), MISUSE);
    assert.ok(bytes.subarray(OUT, OUT + 16).every((byte) => byte === 0xa5));
  });

  test.run();
}

const test = suite('compressedDescriptors, twin and kernel agree');

test('on random tables', () => {
  const random = rng();
  for (let round = 0; round < 5000; round++) {
    const bits = 9 + random.below(13);
    const stride = random.pick([8, 16]);
    const at = IN + random.below(17);
    const entries = random.below(40);
    const odds = 1 + random.below(6);
    for (let i = 0; i < entries; i++) {
      // Few of the high bits, or nearly every small cluster's offset would be refused.
      const high = random.u32() & random.u32() & random.u32() & ~0x4000_0000;
      const compressed = random.oneIn(odds) ? 0x4000_0000 : 0;
      view.setUint32(at + i * stride, high | compressed);
      view.setUint32(at + i * stride + 4, random.oneIn(3) ? random.u32() & ~511 : random.u32());
      if (stride === 16) view.setUint32(at + i * stride + 8, random.u32());
    }
    agree(`SEED=${SEED} round ${round}`, entries * 16, (k, out) =>
      k.compressedDescriptors(at, entries, stride, bits, out),
    );
  }
});

test.run();
