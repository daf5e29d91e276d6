/**
 * Compressed clusters that the engine wrote, as QEMU reads them: every cluster size, both codecs.
 * Replay with SEED=….
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Qcow2Image } from '../../src/image/qcow2/qcow2-image.ts';
import { openNodeFile } from '../../src/storage/node-file.ts';
import { anySample } from '../kernels/deflate-samples.ts';
import { qemuSuite } from '../oracle.ts';
import { rng, SEED } from '../random.ts';
import { inScratch, qemuImg } from '../tool.ts';

const MIB = 1 << 20;

const test = qemuSuite('compressed clusters, judged by QEMU');

for (const compression of ['deflate', 'zstd'] as const) {
  test(`${compression}: clusters of every size hold what was written`, async () => {
    const random = rng();
    for (let bits = 9; bits <= 21; bits++) {
      const clusterSize = 1 << bits;
      // The last cluster is cut short.
      const size = Math.max(MIB / 8, 3 * clusterSize) - 512;
      const plain = new Uint8Array(size);
      await inScratch(async (folder) => {
        const storage = openNodeFile(join(folder, 'image'), { create: true, writable: true });
        const image = await Qcow2Image.create(storage, { size, clusterSize, compression });
        for (let at = 0; at < size; at += clusterSize) {
          const bytes = anySample(random, Math.min(clusterSize, size - at));
          plain.set(bytes, at);
          await image.writeCompressed(at, bytes);
        }
        await image.close();
        writeFileSync(join(folder, 'plain'), plain);
        const cwd = folder;
        await qemuImg(['check', '-q', 'image'], { cwd });
        await qemuImg(['compare', '-q', '-f', 'qcow2', '-F', 'raw', 'image', 'plain'], { cwd });
      }).catch((cause) => {
        throw new Error(`clusters of 2^${bits}, SEED=${SEED}\n${cause.message}`, { cause });
      });
    }
  });
}

test.run();
