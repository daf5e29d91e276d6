/** The library in Node: all of `index.ts`, and files and threads. */
import { availableParallelism } from 'node:os';
import { type ConvertTarget, convert } from './convert/convert.ts';
import type { ConvertResult } from './convert/options.ts';
import { startNodeWorkers } from './convert/pool-node.ts';
import type { Disk } from './image/disk.ts';

export { startNodeWorkers } from './convert/pool-node.ts';
export * from './index.ts';
export { type NodeFileOptions, type NodeFileStorage, openNodeFile } from './storage/node-file.ts';

/** `convert` on all cores. */
export function convertFile(
  source: Disk | readonly Disk[],
  target: ConvertTarget,
  options: Parameters<typeof convert>[2] = {},
): Promise<ConvertResult> {
  const workers = availableParallelism() - 1;
  return convert(source, target, { workers, startWorkers: startNodeWorkers, ...options });
}
