/** Zeros of raw disks: what room they keep in the file, beside qemu-io. */
import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { RawImage } from '../../src/image/raw/raw-image.ts';
import { openNodeFile } from '../../src/storage/node-file.ts';
import { qemuSuite } from '../oracle.ts';
import { inScratch, qemuIo } from '../tool.ts';

const MIB = 2 ** 20;
const test = qemuSuite('zeros of raw disks');

test('room stays with the file, or comes to it, unless it may go', async () => {
  await inScratch(async (folder) => {
    const [mine, theirs] = [join(folder, 'mine'), join(folder, 'theirs')];
    for (const unmap of [false, true]) {
      for (const path of [mine, theirs]) {
        writeFileSync(path, Buffer.alloc(2 * MIB, 1));
        const file = openNodeFile(path, { writable: true });
        file.truncate(4 * MIB);
        file.close();
      }
      const disk = await RawImage.open(openNodeFile(mine, { writable: true }), { writable: true });
      await disk.zero(MIB, 2 * MIB, { unmap });
      const bytes = new Uint8Array(4 * MIB);
      await disk.read(0, bytes);
      assert.ok(bytes.every((byte, at) => byte === (at < MIB ? 1 : 0)));
      await disk.close();
      const zero = `write -z ${unmap ? '-u ' : ''}${MIB} ${2 * MIB}`;
      await qemuIo(theirs, [zero], { format: 'raw' });
      assert.is(statSync(mine).blocks, statSync(theirs).blocks, zero);
    }
  });
});

test.run();
