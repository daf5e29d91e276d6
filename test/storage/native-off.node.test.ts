/** Without the C library's calls everything still works, by writing and reading. */
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isLibcLoaded, libc } from '../../src/storage/native-libc.ts';
import { claimFile, releaseClaim } from '../../src/storage/native-lock.ts';
import { openNodeFile } from '../../src/storage/node-file.ts';

// Looked at when the first call is needed.
process.env.QCOW2_NATIVE = '0';

const MIB = 2 ** 20;

const test = suite('storage without native calls');
let folder = '';
let path = '';

test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), 'qcow2-test-'));
  path = join(folder, 'file');
  writeFileSync(path, Buffer.alloc(2 * MIB, 1));
});
test.after.each(() => rmSync(folder, { recursive: true }));

test('is switched off by the environment', () => {
  assert.is(libc(), undefined);
  assert.is(isLibcLoaded(), false);
});

test('zeros are written', () => {
  const file = openNodeFile(path, { writable: true });
  file.zero(MIB, 16 * MIB);
  file.close();
  const wanted = Buffer.alloc(17 * MIB).fill(1, 0, MIB);
  assert.is(Buffer.compare(readFileSync(path), wanted), 0);
});

test('room is made by writing what is there, and zeros behind it', () => {
  const file = openNodeFile(path, { writable: true });
  assert.is(file.tryAllocate(0, 4 * MIB, { keepSize: true }), false);
  file.allocate(MIB, 2 * MIB + 100);
  file.close();
  const wanted = Buffer.alloc(3 * MIB + 100).fill(1, 0, 2 * MIB);
  assert.is(Buffer.compare(readFileSync(path), wanted), 0);
});

test('what cannot be had is left as it is', () => {
  truncateSync(path, 64 * MIB);
  const file = openNodeFile(path, { writable: true });
  assert.is(file.tryZero(0, MIB), false);
  file.discard(0, MIB);
  assert.is(file.dataRanges(0, 64 * MIB), undefined);
  file.close();
  assert.is(readFileSync(path)[0], 1);
});

test('what Node cannot reach has nothing to read, and is not written', async () => {
  const file = openNodeFile(path, { writable: true });
  const background = file.background()!;
  const code = async (call: () => unknown) => {
    try {
      await call();
      return '';
    } catch (cause) {
      return ((cause as Error).cause as { code?: string }).code;
    }
  };
  for (const at of [2 ** 53 - 256, 2 ** 53, 2 ** 60]) {
    assert.is(await code(() => file.write(at, new Uint8Array(512))), 'EFBIG');
    assert.is(file.read(at, new Uint8Array(512)), 0);
    assert.is(await code(() => file.truncate(at + 512)), 'EFBIG');
    // So long that other threads are asked.
    assert.is(await code(() => background.write(at, new Uint8Array(2 ** 18))), 'EFBIG');
    assert.is(await background.read(at, new Uint8Array(2 ** 18)), 0);
  }
  file.close();
  assert.is(Buffer.compare(readFileSync(path), Buffer.alloc(2 * MIB, 1)), 0);
});

test('claims of nobody else are no obstacle', () => {
  const file = openNodeFile(path);
  const claim = { uses: ['consistent read'], shuts: ['write'] } as const;
  claimFile(file, claim);
  releaseClaim(file, claim);
  file.close();
});

test.run();
