/**
 * Clusters that the zstd encoder made, read by QEMU: every cluster size, every level, contents of
 * all kinds. Replay with SEED=…, many more with SLOW=1.
 */
import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { LEVELS } from '../kernels/zstd-encode-agree.ts';
import { contents } from '../kernels/zstd-encode-samples.ts';
import { qemuSuite } from '../oracle.ts';
import { type Random, rng, SEED } from '../random.ts';
import { inScratch, qemuImg, run, tool } from '../tool.ts';

const ROUNDS = process.env.SLOW ? 20 : 1;
const IO = resolve('dist/qcow2-io.js');

const test = qemuSuite('zstd clusters, read by QEMU');
const random = rng();

/** A disk of several clusters, each of which begins another content. */
function disk(next: Random, clusterSize: number): Uint8Array {
  const clusters = Math.max(2, Math.min(64, 0x100000 / clusterSize));
  const bytes = new Uint8Array(clusters * clusterSize);
  for (let at = 0; at < bytes.length; at += clusterSize) {
    bytes.set(contents[next.pick(Object.keys(contents))]!(next, clusterSize), at);
  }
  return bytes;
}

async function judge(folder: string, image: string): Promise<void> {
  await qemuImg(['check', '-q', image], { cwd: folder });
  await qemuImg(['compare', '-q', '-f', 'raw', '-F', 'qcow2', 'plain', image], { cwd: folder });
}

for (let bits = 9; bits <= 21; bits++) {
  test(`clusters of ${2 ** bits} bytes`, async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const level = random.pick(LEVELS);
      const bytes = disk(random, 2 ** bits);
      await inScratch(async (folder) => {
        writeFileSync(join(folder, 'plain'), bytes);
        const options = `cluster_size=${2 ** bits},compression_type=zstd`;
        const args = ['-c', '-f', 'raw', '-O', 'qcow2'];
        const levelled = ['-o', `${options},compression_level=${level}`];
        const made = await tool(['convert', ...args, ...levelled, 'plain', 'image'], {
          cwd: folder,
        });
        assert.is(made.code, 0, `level ${level}, SEED=${SEED}: ${made.stderr}`);
        await judge(folder, 'image');
      });
    }
  });
}

test('clusters that qcow2-io writes into an image of qemu-img', () =>
  inScratch(async (folder) => {
    const bytes = disk(random, 65536);
    writeFileSync(join(folder, 'plain'), bytes);
    const create = ['create', '-q', '-f', 'qcow2', '-o', 'compression_type=zstd', 'image'];
    await qemuImg([...create, String(bytes.length)], { cwd: folder });
    const command = `write -c -q -s plain 0 ${bytes.length}`;
    const wrote = await run(process.execPath, [IO, '-c', command, 'image'], { cwd: folder });
    assert.is(wrote.code, 0, `SEED=${SEED}: ${wrote.stdout}${wrote.stderr}`);
    await judge(folder, 'image');
  }));

test.run();
