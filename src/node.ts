/** The library in Node: all of `index.ts`, and files and threads. */
import { availableParallelism } from 'node:os';
import type { ConvertOptions, ConvertResult } from './convert/convert.ts';
import { startNodeWorkers } from './convert/pool-node.ts';
import { convertToRaw } from './convert/to-raw.ts';
import type { Disk } from './image/disk.ts';
import type { Storage } from './storage/storage.ts';

export { startNodeWorkers } from './convert/pool-node.ts';
export * from './index.ts';
export { type NodeFileOptions, type NodeFileStorage, openNodeFile } from './storage/node-file.ts';

/** `convertToRaw` on all cores. */
export function convertFile(
  disks: readonly Disk[],
  target: Storage,
  options: ConvertOptions = {},
): Promise<ConvertResult> {
  const workers = availableParallelism() - 1;
  return convertToRaw(disks, target, { workers, startWorkers: startNodeWorkers, ...options });
}
