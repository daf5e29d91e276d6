// What tests of commands that change chains have in common: copies of them for both tools, and what
// must be alike afterwards.
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { requireQemu } from '../oracle.ts';
import { difference, qemuImg, run } from '../tool.ts';
import { PATTERN } from './random-image.ts';

/** Copies of a folder's files for both tools. */
export function twoFolders(folder: string, of = ''): readonly [string, string] {
  const folders = [`${folder}/ours${of}`, `${folder}/theirs${of}`] as const;
  for (const made of folders) mkdirSync(made);
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    if (!entry.isFile() || entry.name === PATTERN) continue;
    for (const made of folders) copyFileSync(`${folder}/${entry.name}`, `${made}/${entry.name}`);
  }
  return folders;
}

/** Not a data file. */
export const isImage = (name: string) => !name.endsWith('.data');

/** Each image of both folders is sound and shows the same bytes. */
export async function assertAlike(
  folders: readonly [string, string],
  title: string,
): Promise<void> {
  const { img } = requireQemu();
  for (const name of readdirSync(folders[0]).filter(isImage)) {
    const format = name.endsWith('.qcow2') ? 'qcow2' : 'raw';
    if (format === 'qcow2') {
      const checked = await run(img, ['check', name], { cwd: folders[0] });
      assert.is(checked.code, 0, `${title}\n${name}: ${checked.stdout}${checked.stderr}`);
    }
    const [left, right] = await Promise.all(folders.map((cwd) => guestBytes(cwd, name, format)));
    assert.is(difference(left as Buffer, right as Buffer), '', `${title}\n${name}`);
  }
}

/** All that a guest sees of an image. */
export async function guestBytes(cwd: string, name: string, format: string): Promise<Buffer> {
  await qemuImg(['convert', '-f', format, '-O', 'raw', name, 'guest'], { cwd });
  const bytes = readFileSync(`${cwd}/guest`);
  rmSync(`${cwd}/guest`);
  return bytes;
}
