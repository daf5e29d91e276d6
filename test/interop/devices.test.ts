/**
 * Block devices as sources and targets, as virtual machine managers use them: their size is what it
 * is, and a new image on one begins with whatever the device held. Needs loop devices.
 */
import { mkdirSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { type Qemu, qemuSuite, requireQemu } from '../oracle.ts';
import { inScratch, must, qemuImg, qemuIo, run, TOOL } from '../tool.ts';

const MIB = 2 ** 20;
const DEVICE_BYTES = 16 * MIB;

/** A folder with images, and `dev`, a link to a device. */
interface Side {
  readonly folder: string;
  readonly device: string;
  readonly program: string;
}

/** A loop device over a new file; undefined where this machine lends none. */
async function attach(path: string): Promise<string | undefined> {
  writeFileSync(path, '');
  truncateSync(path, DEVICE_BYTES);
  try {
    const { code, stdout } = await run('losetup', ['-f', '--show', path]);
    return code === 0 ? stdout.toString().trim() : undefined;
  } catch {
    return undefined;
  }
}

/** Whether this machine lends loop devices. */
const hasDevices = await inScratch(async (folder) => {
  const device = await attach(join(folder, 'disk'));
  if (device !== undefined) await must('losetup', ['-d', device]);
  return device !== undefined;
});

const real = qemuSuite('block devices');
const test: typeof real = hasDevices
  ? real
  : Object.assign((title: string) => real.skip(title), real);

async function makeImages(cwd: string): Promise<void> {
  await qemuImg(['create', '-q', '-f', 'qcow2', 'a.qcow2', '6M'], { cwd });
  await qemuIo('a.qcow2', ['write -P 3 0 2M', 'write -P 4 4M 1000k', 'write -z 3M 64k'], { cwd });
  await qemuImg(['convert', '-O', 'raw', 'a.qcow2', 'a.raw'], { cwd });
  await qemuImg(['create', '-q', '-f', 'qcow2', 'big.qcow2', '20M'], { cwd });
  writeFileSync(join(cwd, 'passphrase'), 'open sesame');
}

async function withSides(work: (sides: readonly Side[]) => Promise<void>): Promise<void> {
  await inScratch(async (root) => {
    const sides: Side[] = [];
    const qemu: Qemu = requireQemu();
    try {
      for (const [name, program] of Object.entries({ ours: TOOL, theirs: qemu.img })) {
        const folder = join(root, name);
        mkdirSync(folder);
        const device = await attach(join(folder, 'disk'));
        if (device === undefined) throw new Error('no further loop device');
        sides.push({ folder, device, program });
        symlinkSync(device, join(folder, 'dev'));
        await makeImages(folder);
      }
      await work(sides);
    } finally {
      for (const { device } of sides) await must('losetup', ['-d', device]);
    }
  });
}

interface Told {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
  readonly bytes: string;
}

/** Fills the device with ones, and tells what a command line does with it. */
async function told({ folder, device, program }: Side, lines: string): Promise<Told> {
  writeFileSync(device, Buffer.alloc(DEVICE_BYTES, 0xff));
  const named = lines.replaceAll('IMG ', `'${program}' `);
  const script = `${named}\necho ended with $?; sha256sum < dev`;
  const { code, stdout, stderr } = await run('sh', ['-c', script], { cwd: folder });
  const [bytes = '', ...rest] = stdout.toString().trimEnd().split('\n').reverse();
  const plain = (text: string) => text.replaceAll('qcow2-img', 'qemu-img').trimEnd();
  return { code, out: plain(rest.reverse().join('\n')), err: plain(stderr), bytes };
}

async function sameOnDevices(cases: readonly string[]): Promise<void> {
  await withSides(async ([ours, theirs]) => {
    for (const lines of cases) {
      const mine = await told(ours as Side, lines);
      const qemu = await told(theirs as Side, lines);
      assert.equal(mine, qemu, lines);
    }
  });
}

test('converting to a device leaves nothing there of what it held within the disk', () =>
  sameOnDevices([
    'IMG convert -O raw a.qcow2 dev',
    'IMG convert -f raw -O raw a.raw dev',
    'IMG convert -n -O raw a.qcow2 dev',
    'IMG convert -n --target-is-zero -O raw a.qcow2 dev',
    'IMG convert -S 0 -O raw a.qcow2 dev',
    'IMG convert -W -t none -T none -O raw a.qcow2 dev',
    'IMG convert -f raw -O raw a.raw a.raw dev',
    'IMG dd -O raw bs=1M count=3 if=a.qcow2 of=dev',
    'IMG convert -O qcow2 a.qcow2 dev; IMG compare a.qcow2 dev; IMG check dev',
    'IMG create -q -f qcow2 dev 8M; IMG convert -n -O qcow2 a.qcow2 dev; IMG compare a.qcow2 dev',
  ]));

test('images with a place for every cluster do not show what a device held', () =>
  withSides(async ([side]) => {
    const { folder, device } = side as Side;
    writeFileSync(device, Buffer.alloc(DEVICE_BYTES, 0xff));
    await must(TOOL, ['convert', '-O', 'qcow2', '-o', 'preallocation=metadata', 'a.raw', 'dev'], {
      cwd: folder,
    });
    await qemuImg(['compare', 'a.raw', 'dev'], { cwd: folder });
    await qemuImg(['check', '-q', 'dev'], { cwd: folder });
    writeFileSync(device, Buffer.alloc(DEVICE_BYTES, 0xff));
    const options = 'data_file=dev,data_file_raw=on';
    await must(TOOL, ['convert', '-O', 'qcow2', '-o', options, 'a.raw', 'b.qcow2'], {
      cwd: folder,
    });
    await qemuImg(['compare', 'a.raw', 'b.qcow2'], { cwd: folder });
  }));

test('images are made on devices, byte for byte, and grow there', () =>
  sameOnDevices([
    'IMG create -f qcow2 dev 1G; IMG check dev; IMG map --output=json dev',
    'IMG create -f qcow2 -o cluster_size=512 dev 1M; IMG check dev',
    'IMG create -f qcow2 -o extended_l2=on,refcount_bits=1 dev 100G; IMG check dev',
    'IMG create -f qcow2 -o preallocation=metadata dev 8M; IMG check dev',
    'IMG create -q -f qcow2 dev 1G; IMG resize dev 2G; IMG check dev; cat /dev/zero >dev',
    'IMG create -f raw dev 4M',
    'IMG create -f raw dev 0',
    'IMG create -q -f qcow2 -b dev -F raw over.qcow2; IMG commit over.qcow2; rm over.qcow2',
    'IMG convert -O qcow2 dev out.qcow2; IMG compare dev out.qcow2; IMG measure -O qcow2 dev',
  ]));

test('a device has the size that it has', () =>
  sameOnDevices([
    'IMG create -f raw dev 17M',
    'IMG create -f raw -o preallocation=full dev 4M',
    'IMG create -f raw -o preallocation=falloc dev 4M',
    'IMG convert -O raw big.qcow2 dev',
    'IMG convert -n -O raw big.qcow2 dev',
    'IMG convert -O raw -o preallocation=falloc a.qcow2 dev',
    'IMG resize -f raw dev 16M',
    'IMG resize -f raw dev 17M',
    'IMG resize -f raw dev +1M',
    'IMG resize -f raw --shrink dev 8M',
    'IMG resize -f raw dev 8M',
    'IMG convert -O raw a.raw /dev/null',
    'IMG create -f raw /dev/null 1M; IMG create -f raw /dev/null 0; IMG resize -f raw /dev/null 1M',
  ]));

test('a device, by a name that says that it is one', () =>
  sameOnDevices([
    'IMG info host_device:dev',
    'IMG convert -n -O raw a.raw host_device:dev',
    'IMG convert -n -O qcow2 a.qcow2 host_device:dev',
    'IMG compare -f raw -F raw a.raw host_device:dev',
    'IMG check -f qcow2 host_device:dev',
  ]));

test.run();
