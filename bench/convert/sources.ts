/** What conversions are measured on: images made of a raw disk, and the folder's memory. */
import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';

/** Makes an image of a raw disk. @returns its path */
export type MakeSource = (disk: string, folder: string, size: number) => string;

/** An image as qemu-img makes it. */
export function qemuConvert(options: readonly string[]): MakeSource {
  return (disk, folder) => {
    const image = join(folder, 'source.qcow2');
    execFileSync('qemu-img', ['convert', '-m', '8', '-W', '-O', 'qcow2', ...options, disk, image]);
    return image;
  };
}

/** Three images: a base and two overlays that each replace a tenth of it. */
export function makeChain(disk: string, folder: string, size: number): string {
  let below = qemuConvert([])(disk, folder, size);
  for (const [level, shift] of [
    ['middle', 0],
    ['top', 5],
  ] as const) {
    const image = join(folder, `${level}.qcow2`);
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', below, '-F', 'qcow2', image]);
    const writes: string[] = [];
    for (let mib = shift; mib < size / 2 ** 20; mib += 10) {
      writes.push('-c', `write -q -P ${(mib % 250) + 1} ${mib}M 1M`);
    }
    execFileSync('qemu-io', ['-t', 'unsafe', ...writes, image]);
    below = image;
  }
  return below;
}

/**
 * Touches as much of a folder's memory as a target will take, and leaves none. A virtual machine's
 * host may take back memory that was freed, and then whoever writes next pays for getting it
 * again: touching it just before makes runs alike.
 */
export function touchMemory(target: string, mebibytes: number): void {
  rmSync(target, { force: true });
  const count = `count=${Math.round(mebibytes)}`;
  execFileSync('dd', ['if=/dev/zero', `of=${target}`, 'bs=1M', count], { stdio: 'ignore' });
  rmSync(target);
}
