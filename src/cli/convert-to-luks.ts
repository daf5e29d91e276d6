/** New LUKS containers as targets of `convert`. */
import type { ConvertResult } from '../convert/options.ts';
import { convertToRaw } from '../convert/to-raw.ts';
import type { Disk } from '../image/disk.ts';
import { LuksImage } from '../image/luks/luks-image.ts';
import { borrowed } from '../storage/borrowed.ts';
import { checkCacheMode } from './cache-mode.ts';
import type { Host } from './command.ts';
import { type Course, checkNewBitmaps, explainCreation } from './convert-course.ts';
import { beforeTargets, withNewFile } from './convert-new-file.ts';
import type { ConvertRequest } from './convert-request.ts';
import { givenPassphrase, luksFormat } from './encryption-options.ts';
import { claimImageFile } from './image-claims.ts';
import { newPath } from './path-gate.ts';

/** A LUKS container: a raw target behind a header, all of it written, since holes are no zeros. */
export async function intoLuks(
  host: Host,
  request: ConvertRequest,
  disks: readonly Disk[],
  course: Course,
): Promise<ConvertResult> {
  const { target, values, flush } = request;
  const format = await explainCreation(request, async () => luksFormat(values, ''));
  const name = 'key-secret';
  const passphrase = await beforeTargets(host, request, {
    paths: [newPath(target)],
    settle: () =>
      explainCreation(request, () => givenPassphrase(host, values, { name, path: target })),
  });
  const choice = { ...format, passphrase, size: 0 };
  return withNewFile(host, request, { disks, course }, async (file) => {
    checkCacheMode(request.cache, 'cache');
    await checkNewBitmaps(request);
    claimImageFile(file, 'luks', { use: 'write' });
    const image = await LuksImage.create(borrowed(file), choice);
    const { storage } = image.sources[0] as (typeof image.sources)[number];
    await course.onTarget?.({});
    const result = await convertToRaw(disks, storage, { ...course, sparseBytes: 0 });
    if (flush) file.flush();
    return result;
  });
}
