/** What `npm start` does without arguments: converts a sample image and compares the result. */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { formatSize } from '../base/sizes.ts';
import { openDisk } from '../image/open.ts';
import type { Host } from './command.ts';
import { convert } from './commands/convert.ts';

const CHUNK_BYTES = 1024 * 1024;

/** @returns 0 where the conversion gave the same bytes as reading the image does */
export async function demo(host: Host): Promise<number> {
  const sample = fileURLToPath(new URL('./sample.qcow2', import.meta.url));
  const folder = mkdtempSync(join(tmpdir(), 'qcow2-demo-'));
  const raw = join(folder, 'sample.raw');
  try {
    const disk = await openDisk(host.openFile(sample));
    host.out(
      `sample.qcow2: ${formatSize(statSync(sample).size)} of file, ` +
        `${formatSize(disk.size)} of disk\n` +
        `$ ${host.program} convert -O raw sample.qcow2 sample.raw\n`,
    );
    const start = performance.now();
    await convert.run(['-O', 'raw', sample, raw], host);
    const seconds = (performance.now() - start) / 1000;
    host.out(
      `sample.raw: ${formatSize(statSync(raw).blocks * 512)} on disk, made in ` +
        `${Math.round(seconds * 1000)} ms (${formatSize(disk.size / seconds)}/s)\n`,
    );
    const file = host.openFile(raw);
    const same = await compareAll(disk, file);
    file.close();
    await disk.close();
    host.out(same ? 'Compared byte for byte: identical.\n' : 'Compared: the bytes differ!\n');
    host.out('Next: npm start -- convert -p -O raw YOUR.qcow2 YOUR.raw\n');
    return same ? 0 : 1;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function compareAll(
  disk: Awaited<ReturnType<typeof openDisk>>,
  file: ReturnType<Host['openFile']>,
): Promise<boolean> {
  if (file.size() !== disk.size) return false;
  const a = new Uint8Array(CHUNK_BYTES);
  const b = new Uint8Array(CHUNK_BYTES);
  for (let at = 0; at < disk.size; at += CHUNK_BYTES) {
    const length = Math.min(CHUNK_BYTES, disk.size - at);
    await disk.read(at, a.subarray(0, length));
    file.read(at, b.subarray(0, length));
    if (Buffer.compare(a.subarray(0, length), b.subarray(0, length)) !== 0) return false;
  }
  return true;
}
