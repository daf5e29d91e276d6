/** What conversions are measured on: images made of a raw disk, and the folder's memory. */
import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
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

/** Bytes of a scattered disk, and of its pieces. */
const SCATTERED_BYTES = 2 ** 40;
const PIECE_BYTES = 2 ** 24;

/** A raw disk of 1 TiB with the bytes of the given one here and there, and nothing between. */
export const scatter: MakeSource = (disk, folder, size) => {
  const path = join(folder, 'scattered.raw');
  const [from, to] = [openSync(disk, 'r'), openSync(path, 'w')];
  const piece = new Uint8Array(PIECE_BYTES);
  const apart = Math.floor(SCATTERED_BYTES / (size / PIECE_BYTES) / 65536) * 65536;
  for (let index = 0; index < size / PIECE_BYTES; index++) {
    readSync(from, piece, 0, PIECE_BYTES, index * PIECE_BYTES);
    writeSync(to, piece, 0, PIECE_BYTES, index * apart);
  }
  ftruncateSync(to, SCATTERED_BYTES);
  closeSync(from);
  closeSync(to);
  return path;
};

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
