/** Sizes as people read them. The table is what qemu-img 7.2 prints for such files and disks. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { formatBytes, formatSize } from '../../src/base/sizes.ts';

const test = suite('sizes');

for (const [bytes, text] of [
  [0, '0 B'],
  [1, '1 B'],
  [512, '512 B'],
  [999, '999 B'],
  [1000, '0.977 KiB'],
  [1023, '0.999 KiB'],
  [1024, '1 KiB'],
  [1536, '1.5 KiB'],
  [196608, '192 KiB'],
  [1023488, '1e+03 KiB'],
  [1024000, '0.977 MiB'],
  [1048576, '1 MiB'],
  [10737418240, '10 GiB'],
  [2 ** 60, '1 EiB'],
  [2 ** 63 - 2 ** 30, '8 EiB'],
] as const) {
  test(`${bytes} is ${text}`, () => assert.is(formatSize(bytes), text));
}

test('all digits of sizes above 2^53', () => {
  assert.is(formatBytes(2 ** 62), '4611686018427387904');
  assert.is(formatBytes(2 ** 63 - 2 ** 30), '9223372035781033984');
  assert.is(formatBytes(123), '123');
});

test.run();
