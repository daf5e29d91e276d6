/**
 * Looking before an image becomes shorter. Refcounts decide which clusters go then, and where the
 * file is cut off: a count that is too low would take bytes along that stay in use.
 */
import { Qcow2Error } from '../../base/errors.ts';
import type { Storage } from '../../storage/storage.ts';
import { checkStorage } from './check.ts';

/**
 * Counts all references of an image that nobody is writing; costs what reading its tables does.
 * Counts that are too high are leaks, and no reason to refuse; nor are COPIED flags.
 * @throws Qcow2Error CORRUPT where counts are too low or cannot be read
 */
export async function refuseMiscounted(storage: Storage): Promise<void> {
  let first: string | undefined;
  const { corruptions, checkErrors } = await checkStorage(storage, {
    countsOnly: true,
    onError: (line) => {
      if (!line.startsWith('Leaked')) first ??= line;
    },
  });
  if (corruptions + checkErrors === 0) return;
  const what = first === undefined ? '' : ` (${first})`;
  throw new Qcow2Error(
    'CORRUPT',
    `Cannot shrink an image whose refcounts are wrong${what}: 'check -r all' puts them right`,
  );
}
