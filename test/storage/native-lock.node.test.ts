/** Claims on image files: which exclude each other, by which bytes, and with which words. */
import {
  closeSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { isQcow2Error } from '../../src/base/errors.ts';
import { type Claim, CREATING, claimFile, releaseClaim } from '../../src/storage/native-lock.ts';
import { openNodeFile } from '../../src/storage/node-file.ts';
import { nativeSuite } from '../native-layer.ts';

const INSPECT: Claim = { uses: [], shuts: ['write', 'resize'] };
const SHARED: Claim = { uses: ['consistent read'], shuts: [] };
const READ: Claim = { uses: ['consistent read'], shuts: ['write', 'resize'] };
const WRITE: Claim = { uses: ['consistent read', 'write', 'resize'], shuts: ['write', 'resize'] };
const RAW_WRITE: Claim = { uses: ['consistent read', 'write'], shuts: [] };

const test = nativeSuite('image locks');
let folder = '';
let path = '';
let opened: number[] = [];

test.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), 'qcow2-test-'));
  path = join(folder, 'image');
  writeFileSync(path, 'content');
  opened = [];
});
test.after.each(() => {
  for (const fd of opened) closeSync(fd);
  rmSync(folder, { recursive: true });
});

function open(): { fd: number; name: string } {
  const fd = openSync(path, 'r+');
  opened.push(fd);
  return { fd, name: 'image' };
}

/** What a claim is answered, empty where it is granted. */
function answer(file: { fd: number; name: string }, claim: Claim): string {
  try {
    claimFile(file, claim);
    return '';
  } catch (cause) {
    if (!isQcow2Error(cause, 'BUSY')) throw cause;
    return cause.message;
  }
}

const HINT = '\nIs another process using the image [image]?';

for (const [fact, first, second, wanted] of [
  ['two may read', READ, READ, ''],
  ['two may write a raw file', RAW_WRITE, RAW_WRITE, ''],
  ['what is written is not read', WRITE, READ, `Failed to get shared "write" lock${HINT}`],
  ['what is written is not inspected', WRITE, INSPECT, `Failed to get shared "write" lock${HINT}`],
  ['what is written is read with force-share', WRITE, SHARED, ''],
  ['what is read is not written', READ, WRITE, `Failed to get "write" lock${HINT}`],
  ['what is read is inspected', READ, INSPECT, ''],
  ['what is read is not made anew', READ, CREATING, `Failed to get "write" lock${HINT}`],
  ['a shared reader keeps nobody out', SHARED, WRITE, ''],
  ['what is written is not written', WRITE, WRITE, `Failed to get "write" lock${HINT}`],
  ['a raw file that is written is made anew', RAW_WRITE, CREATING, ''],
  ['what is being made is not resized', CREATING, WRITE, `Failed to get "resize" lock${HINT}`],
] as const) {
  test(fact, () => {
    claimFile(open(), first);
    assert.is(answer(open(), second), wanted);
  });
}

test('a claim ends when it is released, and when the file is closed', () => {
  const first = open();
  claimFile(first, WRITE);
  releaseClaim(first, WRITE);
  assert.is(answer(open(), READ), '');
  for (const fd of opened.splice(0)) closeSync(fd);
  assert.is(answer(open(), WRITE), '');
});

test("one's own bytes are those of QEMU", () => {
  const file = open();
  const bytes = () => {
    const { ino } = fstatSync(file.fd);
    const lock = new RegExp(`OFDLCK .*READ .*:${ino} (\\d+) (\\d+)$`, 'gm');
    const ranges = [...readFileSync('/proc/locks', 'latin1').matchAll(lock)];
    // Neighbours are listed as one.
    return ranges
      .flatMap(([, from, to]) => {
        return Array.from({ length: Number(to) - Number(from) + 1 }, (_, i) => Number(from) + i);
      })
      .sort((a, b) => a - b);
  };
  for (const [claim, wanted] of [
    [INSPECT, [201, 203]],
    [SHARED, [100]],
    [READ, [100, 201, 203]],
    [WRITE, [100, 101, 103, 201, 203]],
    [RAW_WRITE, [100, 101]],
    [CREATING, [101, 103, 203]],
  ] as const) {
    claimFile(file, claim);
    // The list may pass one over while other programs take and give back locks.
    for (let attempt = 0; attempt < 10 && bytes().length < wanted.length; attempt++);
    assert.equal(bytes(), [...wanted]);
    releaseClaim(file, claim);
    assert.equal(bytes(), []);
  }
});

test('a file that another has is not emptied', () => {
  claimFile(open(), READ);
  try {
    openNodeFile(path, { create: true, claim: RAW_WRITE }).close();
    assert.unreachable();
  } catch (cause) {
    assert.ok(isQcow2Error(cause, 'BUSY'));
  }
  assert.is(readFileSync(path, 'utf8'), 'content');
});

test('a file that is made stays claimed', () => {
  for (const name of ['image', 'new']) {
    path = join(folder, name);
    const file = openNodeFile(path, { create: true, claim: RAW_WRITE });
    assert.is(readFileSync(path, 'utf8'), '');
    assert.is(answer(open(), READ), `Failed to get shared "write" lock${HINT}`);
    file.close();
    assert.is(answer(open(), READ), '');
  }
});

test.run();
