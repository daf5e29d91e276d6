/**
 * QEMU's own tools, which tests compare with. Node only.
 *
 * A machine without them runs the rest: tests that need them count as skipped. Under CI=true they
 * fail instead, so that nobody takes an untested build for a tested one.
 */
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { suite, type Test } from 'uvu';

/** Paths of QEMU's two tools. */
export interface Qemu {
  readonly img: string;
  readonly io: string;
}

/** QEMU's tools, where this machine has them. */
export const qemu: Qemu | undefined = findQemu();

/**
 * For what is inside a test or a hook of a `qemuSuite`, which only runs where the tools are.
 */
export function requireQemu(): Qemu {
  if (qemu === undefined) throw new Error('qemu-img and qemu-io are not installed');
  return qemu;
}

/** A uvu suite of which every test, and every hook, needs QEMU's tools. */
export function qemuSuite(name: string): Test {
  const real = suite(name);
  if (qemu !== undefined) return real;
  const hook = Object.assign(() => {}, { each: () => {} });
  const absent = process.env.CI === 'true' ? (title: string) => real(title, fail) : real.skip;
  const without = Object.assign((title: string) => absent(title), {
    only: (title: string) => absent(title),
    skip: real.skip,
    before: hook,
    after: hook,
    run: () => {
      console.error(`${name}: qemu-img and qemu-io are not installed`);
      real.run();
    },
  });
  return without as unknown as Test;
}

function fail(): void {
  requireQemu();
}

function findQemu(): Qemu | undefined {
  const img = findProgram('qemu-img');
  const io = findProgram('qemu-io');
  return img !== undefined && io !== undefined ? { img, io } : undefined;
}

function findProgram(name: string): string | undefined {
  const folders = (process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== '');
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
}
