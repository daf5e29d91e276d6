/**
 * A disk with an installed system's contents: an ext4 file system filled with files of this
 * machine's /usr, in an order that is random but the same on every run.
 */
import { execFileSync, execSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { rng } from '../../test/random.ts';

const FOLDERS = ['bin', 'include', 'lib', 'share'];

function* filesBelow(folder: string): Generator<{ path: string; size: number }> {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) yield* filesBelow(path);
    else if (entry.isFile()) yield { path, size: statSync(path).size };
  }
}

/** Relative paths below /usr that add up to about `bytes`. */
function chooseFiles(bytes: number): string[] {
  const all = FOLDERS.flatMap((folder) => [...filesBelow(`/usr/${folder}`)]);
  const random = rng(1);
  for (let i = all.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [all[i], all[j]] = [all[j]!, all[i]!];
  }
  const chosen: string[] = [];
  let sum = 0;
  for (const { path, size } of all) {
    if (size === 0 || sum + size > bytes) continue;
    sum += size;
    chosen.push(path.slice('/usr/'.length));
    if (sum > bytes * 0.999) break;
  }
  return chosen;
}

/** Makes the raw disk `path` of `size` bytes, 60 % of it filled. */
export function makeSystemDisk(path: string, size: number): void {
  const work = mkdtempSync(join(dirname(path), 'tree-'));
  try {
    const list = join(work, 'list');
    writeFileSync(list, chooseFiles(size * 0.6).join('\n'));
    const tree = join(work, 'tree');
    execSync(`mkdir '${tree}' && tar -C /usr -cf - -T '${list}' | tar -C '${tree}' -xf -`);
    execFileSync('truncate', ['-s', String(size), path]);
    execFileSync('mke2fs', ['-q', '-F', '-t', 'ext4', '-d', tree, path]);
  } finally {
    rmSync(work, { recursive: true });
  }
}
