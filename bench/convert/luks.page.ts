/**
 * The conversions of `luks.bench.ts` in Chromium, in workers, between files of the origin-private
 * file system: 60 % of the disk is data. What the same takes with a disk of next to nothing, under
 * keys as dear, is subtracted: the host's holes are not known here, and zeros have to be read.
 *
 *   npm run bench -- convert/luks --chromium [--size=0.25] [--rounds=3]
 */
import type { ConvertTarget } from '../../src/convert/convert.ts';
import { convertInWorkers } from '../../src/convert/convert-web.ts';
import { openDisk } from '../../src/image/open.ts';
import type { EncryptionChoice } from '../../src/image/qcow2/encrypt-fresh.ts';
import { openOpfsFile } from '../../src/storage/opfs.ts';

const MIB = 2 ** 20;
const KEYS = { format: 'luks', iterTime: 10 } as const;
const SOURCE: EncryptionChoice = { ...KEYS, passphrase: 'source' };
const TARGET: EncryptionChoice = { ...KEYS, passphrase: 'target' };

/** A conversion: how its source and its target are encrypted. */
interface Row {
  readonly title: string;
  readonly from?: EncryptionChoice;
  readonly to?: EncryptionChoice;
}

const ROWS: readonly Row[] = [
  { title: 'LUKS → raw', from: SOURCE },
  { title: 'raw → LUKS', to: TARGET },
  { title: 'LUKS → LUKS', from: SOURCE, to: TARGET },
];

/** Prints the table. */
export default async function bench(options: readonly string[]): Promise<void> {
  const numberOf = (name: string, usual: number) =>
    Number(options.find((option) => option.startsWith(`--${name}=`))?.split('=')[1] ?? usual);
  const gib = numberOf('size', 0.25);
  const rounds = numberOf('rounds', 3);
  await makeDisk('full', gib * 1024);
  await makeDisk('empty', 1);
  for (const disk of ['full', 'empty']) {
    await convertFile({ title: '', to: SOURCE }, disk, `${disk}-luks`);
  }
  console.log('| | disk | keys subtracted | a second | all | of it keys |');
  console.log('|---|---|---|---|---|---|');
  for (const row of ROWS) {
    const took = { full: [] as number[], empty: [] as number[] };
    for (let round = 0; round <= rounds; round++) {
      for (const disk of ['full', 'empty'] as const) {
        const seconds = await convertFile(row, row.from ? `${disk}-luks` : disk, 'target');
        if (round > 0) took[disk].push(seconds);
      }
    }
    const [all, keys] = [median(took.full), median(took.empty)];
    const cells = [
      row.title,
      `${gib} GiB`,
      `${(all - keys).toFixed(2)} s`,
      `${(gib / (all - keys)).toFixed(2)} GiB`,
      `${all.toFixed(2)} s`,
      `${keys.toFixed(2)} s`,
    ];
    console.log(`| ${cells.join(' | ')} |`);
  }
}

async function fileNamed(name: string): Promise<FileSystemFileHandle> {
  const root = await navigator.storage.getDirectory();
  return root.getFileHandle(name, { create: true });
}

/** Three mebibytes of noise, each its own, and two of zeros, over and over; or zeros alone. */
async function makeDisk(name: 'full' | 'empty', mebibytes: number): Promise<void> {
  const storage = await openOpfsFile(await fileNamed(name), { writable: true });
  const noise = new Uint8Array(MIB);
  for (let at = 0; at < MIB; at += 65536) {
    crypto.getRandomValues(noise.subarray(at, at + 65536));
  }
  await storage.truncate(mebibytes * MIB);
  for (let index = 0; name === 'full' && index < mebibytes; index++) {
    if (index % 5 > 2) continue;
    noise[0] = index;
    await storage.write(index * MIB, noise);
  }
  await storage.close();
}

/** @returns seconds, from opening the files to closing them */
async function convertFile({ from, to }: Row, name: string, target: string): Promise<number> {
  const root = await navigator.storage.getDirectory();
  await root.removeEntry(target).catch(() => {});
  const source = await fileNamed(name);
  const into = await fileNamed(target);
  const start = performance.now();
  const disk = await openDisk(
    await openOpfsFile(source, { writable: false }),
    from ? { secret: from.passphrase } : { format: 'raw' },
  );
  const file = await openOpfsFile(into, { writable: true });
  const made: ConvertTarget = to
    ? { format: 'qcow2', file, create: { encryption: to } }
    : { format: 'raw', file };
  await convertInWorkers(disk, made);
  await disk.close();
  await file.close();
  return (performance.now() - start) / 1000;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] as number;
}
