/**
 * Images that the library wrote, as QEMU's tools see them: clean, and with the bytes that were
 * written. Replay with SEED=…, many more with SLOW=1.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { MemoryFiles } from '../image/paged-bytes.ts';
import { qcow2Engine } from '../image/qcow2-engine.ts';
import { IMAGE, randomWriteSetting } from '../image/write-engine.ts';
import { runModel } from '../image/write-model.ts';
import { qemuSuite } from '../oracle.ts';
import { rng, SEED } from '../random.ts';
import { inScratch, qemuImg } from '../tool.ts';

const ROUNDS = process.env.SLOW ? 300 : 8;

/** Writes the files out, and has QEMU check and compare them. */
async function judge(folder: string, files: MemoryFiles, content: Uint8Array): Promise<void> {
  for (const [name, bytes] of files.all) writeFileSync(join(folder, name), bytes.toBytes());
  writeFileSync(join(folder, 'model.raw'), content);
  await qemuImg(['check', '-q', IMAGE], { cwd: folder });
  const formats = ['-f', 'qcow2', '-F', 'raw'];
  await qemuImg(['compare', '-q', ...formats, IMAGE, 'model.raw'], { cwd: folder });
}

const test = qemuSuite('writing qcow2, judged by QEMU');

test('images are clean and hold what was written', async () => {
  for (let round = 0; round < ROUNDS; round++) {
    const next = rng((SEED ^ Math.imul(round + 1, 0x9e3779b1)) | 0);
    const setting = randomWriteSetting(next);
    const afterClose = (files: MemoryFiles, content: Uint8Array) =>
      inScratch((folder) => judge(folder, files, content));
    const options = { steps: 40, unit: next.pick([1, 512]), afterClose };
    await runModel(qcow2Engine(), setting, next, options).catch((cause) => {
      throw new Error(`SEED=${SEED} round ${round}\n${cause.message}`, { cause });
    });
  }
});

test.run();
