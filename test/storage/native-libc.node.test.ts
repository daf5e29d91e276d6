/** The C library's calls, on the file systems that tests are likely to find: tmpfs and a disk's. */
import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { type Libc, libc, type SystemError } from '../../src/storage/native-libc.ts';
import { errnoText } from '../../src/storage/node-error.ts';
import { nativeSuite } from '../native-layer.ts';

const MIB = 2 ** 20;
const PLACES = [tmpdir(), '/dev/shm'].filter(existsSync);

/** The code of what `call` throws; empty where it throws nothing. */
function codeOf(call: () => unknown): string {
  try {
    call();
    return '';
  } catch (cause) {
    return (cause as SystemError).code;
  }
}

for (const place of PLACES) {
  const test = nativeSuite(`calls of the C library in ${place}`);
  const folder = mkdtempSync(join(place, 'qcow2-test-'));
  const native = libc() as Libc;
  let fd = -1;
  let count = 0;

  test.before.each(() => {
    fd = openSync(join(folder, `${count++}`), 'w+');
  });
  test.after.each(() => closeSync(fd));
  test.after(() => rmSync(folder, { recursive: true }));

  const fill = (at: number, length: number, byte = 7) =>
    writeSync(fd, Buffer.alloc(length, byte), 0, length, at);
  const allocated = () => fstatSync(fd).blocks * 512;

  test('finds data and holes', () => {
    ftruncateSync(fd, 8 * MIB);
    fill(MIB, MIB);
    fill(4 * MIB, 65536);
    assert.is(native.seekData(fd, 0), MIB);
    assert.is(native.seekHole(fd, MIB), 2 * MIB);
    assert.is(native.seekData(fd, 2 * MIB), 4 * MIB);
    assert.is(native.seekHole(fd, 4 * MIB), 4 * MIB + 65536);
    assert.is(native.seekData(fd, 5 * MIB), undefined);
    assert.is(native.seekHole(fd, 5 * MIB), 5 * MIB);
  });

  test('a hole reads as zeros and takes no room', () => {
    fill(0, 4 * MIB);
    const before = allocated();
    native.punchHole(fd, MIB, 2 * MIB);
    assert.is(before - allocated(), 2 * MIB);
    assert.is(fstatSync(fd).size, 4 * MIB);
    const bytes = Buffer.alloc(4 * MIB);
    readSync(fd, bytes, 0, bytes.length, 0);
    const wanted = Buffer.alloc(4 * MIB, 7).fill(0, MIB, 3 * MIB);
    assert.is(Buffer.compare(bytes, wanted), 0);
  });

  test('zeros with room kept, or an error that says that there are none', () => {
    fill(0, MIB);
    const before = allocated();
    const code = codeOf(() => native.zeroRange(fd, 0, MIB, { keepSize: true }));
    if (code !== '') {
      assert.is(code, 'ENOTSUP');
      return;
    }
    assert.is(allocated(), before);
    const bytes = Buffer.alloc(MIB, 1);
    readSync(fd, bytes, 0, MIB, 0);
    assert.is(Buffer.compare(bytes, Buffer.alloc(MIB)), 0);
  });

  test('reserves room, with and without growing the file', () => {
    native.allocate(fd, 0, MIB, { keepSize: true });
    assert.is(fstatSync(fd).size, 0);
    assert.ok(allocated() >= MIB);
    native.allocate(fd, 0, 2 * MIB, { keepSize: false });
    assert.is(fstatSync(fd).size, 2 * MIB);
    assert.ok(allocated() >= 2 * MIB);
  });

  test('copies within the kernel', () => {
    fill(0, 65536, 3);
    const to = openSync(join(folder, `${count}-copy`), 'w+');
    try {
      assert.is(native.copyRange(fd, 4096, to, 512, 8192), 8192);
      assert.is(fstatSync(to).size, 8704);
      const bytes = Buffer.alloc(8704, 1);
      readSync(to, bytes, 0, bytes.length, 0);
      assert.is(Buffer.compare(bytes, Buffer.alloc(8704, 3).fill(0, 0, 512)), 0);
      assert.is(native.copyRange(fd, 65536, to, 0, 8192), 0);
    } finally {
      closeSync(to);
    }
  });

  test('copies later, more ranges than there is room for at a time', async () => {
    const ranges = 300;
    const bytes = Buffer.alloc(ranges * 1000).map((_, at) => (at * 7 + (at >> 9)) & 255);
    writeSync(fd, bytes, 0, bytes.length, 0);
    const to = openSync(join(folder, `${count}-later`), 'w+');
    try {
      const copies = Array.from({ length: ranges }, (_, index) => {
        const at = index * 1000;
        return native.copyRangeLater(fd, at, to, 2 ** 33 + (ranges - 1 - index) * 1000, 1000);
      });
      assert.ok((await Promise.all(copies)).every((copied) => copied === 1000));
      for (let index = 0; index < ranges; index++) {
        const got = Buffer.alloc(1000);
        readSync(to, got, 0, 1000, 2 ** 33 + (ranges - 1 - index) * 1000);
        assert.is(Buffer.compare(got, bytes.subarray(index * 1000, index * 1000 + 1000)), 0);
      }
      assert.is(await native.copyRangeLater(fd, bytes.length, to, 0, 1000), 0);
      assert.is(await native.copyRangeLater(fd, bytes.length - 10, to, 0, 1000), 10);
      assert.is(await native.copyRangeLater(fd, 0, 9999, 0, 1000), -1);
    } finally {
      closeSync(to);
    }
  });

  test('a lock is seen by other opens of the file, and goes with its own', () => {
    const path = join(folder, `${count}-locked`);
    const [one, other] = [openSync(path, 'w+'), openSync(path, 'r+')];
    native.lockByte(one, 100);
    assert.is(native.isByteLocked(one, 100), false);
    assert.is(native.isByteLocked(other, 100), true);
    assert.is(native.isByteLocked(other, 101), false);
    native.lockByte(other, 100);
    native.unlockByte(one, 100);
    assert.is(native.isByteLocked(other, 100), false);
    assert.is(native.isByteLocked(one, 100), true);
    closeSync(other);
    assert.is(native.isByteLocked(one, 100), false);
    closeSync(one);
  });

  test('offsets are exact up to 2^62', () => {
    const path = join(folder, `${count}-far`);
    const [one, other] = [openSync(path, 'w+'), openSync(path, 'r+')];
    for (const at of [2 ** 32 + 1, 2 ** 53 - 1, 2 ** 53 + 512, 2 ** 62 - 512]) {
      native.lockByte(one, at);
      assert.is(native.isByteLocked(other, at), true, `${at}`);
      const step = at > 2 ** 53 ? 512 : 1;
      assert.is(native.isByteLocked(other, at - step), false);
      assert.is(native.isByteLocked(other, at + step), false);
    }
    closeSync(other);
    closeSync(one);
  });

  test('a file grows beyond 2^53 bytes, or is too large for its file system', () => {
    const size = 2 ** 55 + 512;
    const code = codeOf(() => native.truncate(fd, size));
    assert.ok(code === '' || code === 'EFBIG', code);
    assert.is(fstatSync(fd).size, code === '' ? size : 0);
  });

  test('errors are like those of Node', () => {
    try {
      native.allocate(fd, 0, 0, { keepSize: false });
      assert.unreachable();
    } catch (cause) {
      const { code, errno, syscall } = cause as SystemError;
      assert.equal({ code, errno, syscall }, { code: 'EINVAL', errno: -22, syscall: 'fallocate' });
      assert.is(errnoText(cause), 'Invalid argument');
    }
    const readOnly = openSync(join(folder, `${count - 1}`), 'r');
    assert.is(
      codeOf(() => native.punchHole(readOnly, 0, 4096)),
      'EBADF',
    );
    closeSync(readOnly);
  });

  test.run();
}
