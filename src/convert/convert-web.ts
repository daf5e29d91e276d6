/** Converting in a browser: on all cores, with the page free to answer its user. */
import type { Disk } from '../image/disk.ts';
import { type ConvertTarget, convert } from './convert.ts';
import type { ConvertResult } from './options.ts';
import { startWebWorkers } from './pool-web.ts';

/** A page on a large machine gets no faster beyond: its files are the limit. */
const WORKERS_MAX = 8;

/**
 * `convert` in workers. They open sources and targets themselves, so these have to be files: of the
 * origin-private file system, picked ones (Blobs), or of a server. With others all is done here.
 */
export function convertInWorkers(
  source: Disk | readonly Disk[],
  target: ConvertTarget,
  options: Parameters<typeof convert>[2] = {},
): Promise<ConvertResult> {
  const workers = Math.min(WORKERS_MAX, navigator.hardwareConcurrency);
  const web = { workers, startWorkers: startWebWorkers, jobsHere: false };
  return convert(source, target, { ...web, ...options });
}
