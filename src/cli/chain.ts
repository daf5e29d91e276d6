/** The images of a chain, as a command finds them by name. */
import { isQcow2Error } from '../base/errors.ts';
import type { DataSource, Disk } from '../image/disk.ts';
import { Qcow2Image } from '../image/qcow2/qcow2-image.ts';
import type { Host } from './command.ts';
import { resolveName } from './path-gate.ts';

/** The disk that an open image shows where it has nothing itself. */
export function backingOf(disk: Disk): Disk | undefined {
  return disk instanceof Qcow2Image ? disk.backing : undefined;
}

/** The disks of a chain, the open image first. */
export function chainOf(disk: Disk): Disk[] {
  const chain: Disk[] = [];
  for (let one: Disk | undefined = disk; one; one = backingOf(one)) chain.push(one);
  return chain;
}

/** The path of the file that an image is in. */
export function pathOf(disk: Disk): string {
  return (disk.sources[0] as DataSource).storage.name;
}

/**
 * Which image behind the first one has a name, counted down the chain.
 * @param name a path; a relative one is looked for from the folder of each image in turn
 * @returns steps down, or undefined where none has it
 */
export function depthOfBacking(host: Host, chain: readonly Disk[], name: string) {
  for (let depth = 1; depth < chain.length; depth++) {
    const above = pathOf(chain[depth - 1] as Disk);
    if (isSameFile(host, resolveIn(name, above), pathOf(chain[depth] as Disk))) return depth;
  }
  return undefined;
}

/** Whether two paths lead to one file. */
export function isSameFile(host: Host, a: string, b: string): boolean {
  try {
    return host.realPath(a) === host.realPath(b);
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    return false;
  }
}

function resolveIn(name: string, from: string): string {
  try {
    return resolveName(name, from);
  } catch (cause) {
    if (!isQcow2Error(cause)) throw cause;
    return name;
  }
}
