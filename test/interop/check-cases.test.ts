/** `check` of images made for one thing each: it must say what qemu-img says. */
import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import * as assert from 'uvu/assert';
import { check } from '../../src/cli/commands/check.ts';
import { resize } from '../../src/cli/commands/resize.ts';
import { snapshot } from '../../src/cli/commands/snapshot.ts';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { inScratch, oftenEnough, qemuImg, qemuIo, run, tool } from '../tool.ts';
import { type Outcome, ours, theirs } from './image-command.ts';

const MODES = [[], ['-r', 'leaks'], ['-r', 'all'], ['--output=json', '-r', 'all']] as const;

const shown = ({ code, out, err }: Outcome) => `exit code ${code}\n${out}${err}`;

/** Copies what is in a folder for each tool. */
function copies(folder: string): readonly [string, string] {
  const made = [`${folder}/ours`, `${folder}/theirs`] as const;
  for (const one of made) {
    mkdirSync(one, { recursive: true });
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      if (entry.isFile()) copyFileSync(`${folder}/${entry.name}`, `${one}/${entry.name}`);
    }
  }
  return made;
}

/** Both tools check `image` in every way, each its own copy. */
async function sameInAllModes(folder: string, modes: readonly (readonly string[])[] = MODES) {
  for (const mode of modes) {
    const [left, right] = copies(folder);
    const args = [...mode, 'image'];
    const expected = await theirs('check', right, args);
    assert.is(shown(await ours(check, left, args)), shown(expected), mode.join(' '));
    if (expected.code !== 0) continue;
    const again = await run(requireQemu().img, ['check', '-q', 'image'], { cwd: left });
    assert.is(again.code, 0, again.stderr);
  }
}

/** An image of 1 MiB with clusters of 4 KiB, and what else is asked for. */
async function makeImage(folder: string, options = '', commands: readonly string[] = []) {
  const all = ['cluster_size=4k', options].filter(Boolean).join(',');
  await qemuImg(['create', '-q', '-f', 'qcow2', '-o', all, 'image', '1M'], { cwd: folder });
  await qemuIo('image', ['write -P 1 0 40k', 'write -P 2 512k 8k', ...commands], { cwd: folder });
}

function change(folder: string, work: (bytes: Buffer) => void): void {
  const bytes = readFileSync(`${folder}/image`);
  work(bytes);
  writeFileSync(`${folder}/image`, bytes);
}

const test = qemuSuite('check, case by case, against qemu-img');

test('command lines that are wrong, and files that are no image', async () => {
  const lines = ['', 'image image', '-r image', '-r foo image', '--output=x image', '-T x image'];
  lines.push('missing', '. ', '-f foo image', '-f qcow2 raw', '-f raw image', 'raw', '-q raw');
  lines.push('-r all raw', '--output=json raw', '-U -r all image', '--bogus', '-f', '-r all .');
  lines.push('overlay', '-T none image', '-U image', '-q image', '--output=json -q image');
  await inScratch(async (folder) => {
    await makeImage(folder);
    writeFileSync(`${folder}/raw`, 'hello');
    const overlay = ['-q', '-f', 'qcow2', '-u', '-b', 'gone', '-F', 'raw', 'overlay', '1M'];
    await qemuImg(['create', ...overlay], { cwd: folder });
    for (const line of lines) {
      const args = line.split(' ').filter(Boolean);
      const expected = await theirs('check', folder, args);
      assert.is(shown(await ours(check, folder, args)), shown(expected), `check ${line}`);
    }
  });
});

test('an image that was left dirty is repaired when it is written again', async () => {
  for (const options of ['lazy_refcounts=on', 'lazy_refcounts=on,refcount_bits=1']) {
    await inScratch(async (folder) => {
      await makeImage(folder, options);
      const { io } = requireQemu();
      await run(io, ['-c', 'write -P 3 100k 90k', '-c', 'sigraise 9', 'image'], { cwd: folder });
      assert.is(readFileSync(`${folder}/image`)[79]! & 1, 1);
      await sameInAllModes(folder);
      const [left, right] = copies(folder);
      const args = ['image', '2M'];
      const expected = await theirs('resize', right, args);
      assert.is(shown(await ours(resize, left, args)), shown(expected));
      await qemuImg(['check', '-q', 'ours/image'], { cwd: folder });
    });
  }
});

test('snapshot tables: entries that are incomplete, too long, too many', async () => {
  const places = (bytes: Buffer) => Number(bytes.readBigUInt64BE(64));
  const damages: ((bytes: Buffer) => void)[] = [
    (bytes) => bytes.writeUInt32BE(8, places(bytes) + 36),
    (bytes) => bytes.writeUInt32BE(1500, places(bytes) + 36),
    (bytes) => bytes.writeUInt32BE(70_000, 60),
    (bytes) => bytes.writeUInt32BE(0, 60),
    (bytes) => bytes.writeBigUInt64BE(512n, 64),
    (bytes) => bytes.writeBigUInt64BE(1n << 63n, 64),
    (bytes) => bytes.writeUInt32BE(2 ** 22 + 1, places(bytes) + 8),
    (bytes) => bytes.writeBigUInt64BE(0x1200n, places(bytes)),
    (bytes) => bytes.writeUInt16BE(65535, places(bytes) + 14),
  ];
  for (const damage of damages) {
    await inScratch(async (folder) => {
      await makeImage(folder);
      for (const name of ['one', 'two']) {
        await qemuImg(['snapshot', '-c', name, 'image'], { cwd: folder });
        await qemuIo('image', ['write -P 4 8k 8k'], { cwd: folder });
      }
      change(folder, damage);
      await sameInAllModes(folder);
    });
  }
});

test('a raw data file, of an image that has no data file', async () => {
  await inScratch(async (folder) => {
    await makeImage(folder);
    change(folder, (bytes) => bytes.writeUInt8(bytes.readUInt8(95) | 2, 95));
    await sameInAllModes(folder);
    const [left, right] = copies(folder);
    for (const [command, name] of [
      [resize, 'resize'],
      [snapshot, 'snapshot'],
    ] as const) {
      const args = name === 'resize' ? ['image', '2M'] : ['-l', 'image'];
      const expected = await theirs(name, right, args);
      assert.is(shown(await ours(command, left, args)), shown(expected), name);
    }
  });
});

test('a table that many L1 entries name', async () => {
  for (const bits of [16, 8, 1]) {
    await inScratch(async (folder) => {
      const options = `cluster_size=512,refcount_bits=${bits}`;
      const args = ['create', '-q', '-f', 'qcow2', '-o', options, 'image', '4M'];
      await qemuImg(args, { cwd: folder });
      await qemuIo('image', ['write -P 1 0 20k'], { cwd: folder });
      change(folder, (bytes) => {
        const l1 = Number(bytes.readBigUInt64BE(40));
        // Up to how often a table is gone through before it is remembered, and beyond it.
        for (let i = 1; i < (bits === 16 ? 100 : 12); i++)
          bytes.copy(bytes, l1 + i * 8, l1, l1 + 8);
      });
      await sameInAllModes(folder, MODES.slice(0, 3));
    });
  }
});

test('a file of more clusters than are counted', async () => {
  await inScratch(async (folder) => {
    const args = ['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512', 'image', '1M'];
    await qemuImg(args, { cwd: folder });
    truncateSync(`${folder}/image`, 512 * 2 ** 31);
    const expected = await theirs('check', folder, ['image']);
    assert.is(shown(await ours(check, folder, ['image'])), shown(expected));
  });
});

test('the marks of a corrupt image go where it is sound, and only then', async () => {
  await inScratch(async (folder) => {
    await makeImage(folder);
    change(folder, (bytes) => bytes.writeUInt8(3, 79));
    await sameInAllModes(folder);
    change(folder, (bytes) => {
      const l1 = Number(bytes.readBigUInt64BE(40));
      const l2 = Number(bytes.readBigUInt64BE(l1) & 0xff_ffff_ffff_fe00n);
      bytes.writeUInt8(0x10, l2 + 7);
    });
    await sameInAllModes(folder);
  });
});

test('refcount structures that are lost', async () => {
  for (const options of ['', 'refcount_bits=1', 'refcount_bits=64', 'extended_l2=on']) {
    await inScratch(async (folder) => {
      const size = options === 'extended_l2=on' ? 'cluster_size=16k' : '';
      await makeImage(folder, [options, size].filter(Boolean).join(','));
      change(folder, (bytes) => bytes.writeBigUInt64BE(0n, Number(bytes.readBigUInt64BE(48))));
      await sameInAllModes(folder);
      change(folder, (bytes) => bytes.writeUInt32BE(0, 56));
      await sameInAllModes(folder);
    });
  }
});

test('broken refcount tables, which QEMU gives up on, are made anew', async () => {
  for (const bits of [1n, 512n, 1n << 63n]) {
    await inScratch(async (folder) => {
      await makeImage(folder, 'cluster_size=64k');
      change(folder, (bytes) => {
        const table = Number(bytes.readBigUInt64BE(48));
        bytes.writeBigUInt64BE(bytes.readBigUInt64BE(table) | bits, table);
      });
      await sameInAllModes(folder, [[]]);
      const [left] = copies(folder);
      const { code, err } = await ours(check, left, ['-r', 'all', 'image']);
      assert.is(code, 0, err);
      await qemuImg(['check', '-q', 'image'], { cwd: left });
      await qemuImg(['compare', '-q', 'image', '../image'], { cwd: left }).catch(() => {});
    });
  }
});

test('refcount blocks outside the file, as far as a file can be repaired', async () => {
  // QEMU takes minutes for the last two, and leaves images that it cannot open.
  for (const [clusterSize, at, isTooFar] of [
    [512, 2 ** 33, false],
    [4096, 2 ** 37, false],
    [65536, 2 ** 62, false],
    [512, 2 ** 37, true],
    [4096, 2 ** 43, true],
  ] as const) {
    await inScratch(async (folder) => {
      await makeImage(folder, `cluster_size=${clusterSize}`);
      change(folder, (bytes) => {
        bytes.writeBigUInt64BE(BigInt(at), Number(bytes.readBigUInt64BE(48)) + 8);
      });
      if (!isTooFar) return sameInAllModes(folder, [[], ['-r', 'all']]);
      const [left, right] = copies(folder);
      const { code, err } = await ours(check, left, ['-r', 'all', 'image']);
      assert.is(code, 0, err);
      assert.match(err, 'ERROR could not resize image: File too large\n');
      await qemuImg(['check', '-q', 'image'], { cwd: left });
      await qemuImg(['compare', '-q', 'image', `${right}/image`], { cwd: left });
    });
  }
});

test('encrypted images, with their key and without', async () => {
  await inScratch(async (folder) => {
    const secret = ['--object', 'secret,id=s,data=123456'];
    const options = 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10';
    const create = ['create', '-q', ...secret, '-f', 'qcow2', '-o', options, 'image', '1M'];
    await oftenEnough(() => qemuImg(create, { cwd: folder }));
    const image = 'driver=qcow2,file.filename=image,encrypt.key-secret=s';
    const without = await theirs('check', folder, ['image']);
    assert.is(shown(await ours(check, folder, ['image'])), shown(without));
    const args = ['check', ...secret, '--image-opts', image];
    const opened = await tool(args, { cwd: folder });
    assert.is(opened.stderr, '');
    assert.is(opened.stdout.toString(), (await qemuImg(args, { cwd: folder })).toString());
  });
});

test('an encryption header that is elsewhere, of another length, or not there', async () => {
  await inScratch(async (folder) => {
    const secret = ['--object', 'secret,id=s,data=123456'];
    const options = 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10';
    const create = ['create', '-q', ...secret, '-f', 'qcow2', '-o', options, 'image', '1M'];
    await oftenEnough(() => qemuImg(create, { cwd: folder }));
    const sound = readFileSync(`${folder}/image`);
    const pointer = sound.indexOf(Buffer.from('0537be77', 'hex')) + 8;
    const name = 'driver=qcow2,file.filename=image,encrypt.key-secret=s';
    for (const [field, value] of [
      [0, 0x10000n],
      [0, 1n << 40n],
      [8, 0n],
      [8, 1000n],
      [8, 0x4000_0000_0021_2000n],
      [8, 0x8000_0000_0021_2000n],
      [8, 1n << 24n],
      // The extension is another one.
      [-8, 0x1111_1111_0000_0010n],
    ] as const) {
      writeFileSync(`${folder}/image`, sound);
      change(folder, (bytes) => bytes.writeBigUInt64BE(value, pointer + field));
      await sameInAllModes(folder, [[], ['-r', 'all']]);
      for (const line of ['check', 'check -r all', 'info']) {
        // Without the extension qemu-img crashes.
        if (field < 0 && line === 'info') continue;
        const [command = '', ...more] = line.split(' ');
        const [left, right] = copies(folder);
        const args = [command, ...more, ...secret, '--image-opts', name];
        const mine = await tool(args, { cwd: left });
        const theirs = await run(requireQemu().img, args, { cwd: right });
        assert.is(mine.stdout.toString(), theirs.stdout.toString(), `${value} ${line}`);
        const text = mine.stderr.replaceAll(/^qcow2-img(\.js)?: /gm, 'qemu-img: ');
        assert.is(text, theirs.stderr, `${value} ${line}`);
        assert.is(mine.code, theirs.code, `${value} ${line}`);
      }
    }
  });
});

test('a second look at what a repair has written to', async () => {
  await inScratch(async (folder) => {
    // An L1 table that lies where nothing is counted: its clusters are given back.
    await makeImage(folder, 'cluster_size=512', ['write -P 3 100k 100k']);
    truncateSync(`${folder}/image`, 512 * Math.floor(readFileSync(`${folder}/image`).length / 512));
    change(folder, (bytes) => {
      bytes.fill(0xa5, bytes.length - 1024);
      bytes.writeBigUInt64BE(BigInt(bytes.length - 1024), 40);
      bytes.writeUInt32BE(2048, 36);
    });
    await sameInAllModes(folder, MODES.slice(0, 2));
  });
});

test('bitmaps: their clusters count, and what is wrong with their tables', async () => {
  await inScratch(async (folder) => {
    await makeImage(folder);
    for (const name of ['one', 'two']) {
      await qemuImg(['bitmap', '--add', '-g', '512', 'image', name], { cwd: folder });
    }
    await qemuIo('image', ['write 0 200k'], { cwd: folder });
    await sameInAllModes(folder);
    const sound = readFileSync(`${folder}/image`);
    const extension = sound.indexOf(Buffer.from('23852875', 'hex'));
    const directory = Number(sound.readBigUInt64BE(extension + 24));
    const table = Number(sound.readBigUInt64BE(directory));
    for (const [at, value] of [
      [extension + 20, 0x3000],
      [extension + 24, 0x8000_0000],
      [extension + 24, 0x4000_0000],
      [directory + 12, 0x0100_0002],
      // A granularity that is none, and a name with bytes that are no text.
      [directory + 16, 24],
      [directory + 20, 8],
      [directory + 20, 0xffff_ffff],
      [directory + 8, 0x1000],
      [table, 0x0100_0000],
      [table + 4, 3],
    ] as const) {
      writeFileSync(`${folder}/image`, sound);
      change(folder, (bytes) => bytes.writeUInt32BE(value, at));
      await sameInAllModes(folder, [[]]);
      // In use nobody loads it, and only the check looks at its table.
      change(folder, (bytes) => bytes.writeUInt32BE(3, directory + 12));
      await sameInAllModes(folder, [[]]);
    }
    writeFileSync(`${folder}/image`, sound);
    change(folder, (bytes) => bytes.writeUInt8(0, 95));
    await sameInAllModes(folder, [[]]);
  });
});

test('sizes that no disk has, and what else is wrong then', () =>
  inScratch(async (folder) => {
    await makeImage(folder);
    await qemuImg(['bitmap', '--add', 'image', 'one'], { cwd: folder });
    const sound = readFileSync(`${folder}/image`);
    const extension = sound.indexOf(Buffer.from('23852875', 'hex'));
    for (const size of [2n ** 64n - 1n, 2n ** 64n - 512n, 2n ** 64n - 2n ** 21n, 2n ** 63n]) {
      for (const length of [24, 0]) {
        writeFileSync(`${folder}/image`, sound);
        change(folder, (bytes) => {
          bytes.writeBigUInt64BE(size, 24);
          bytes.writeUInt32BE(length, extension + 4);
        });
        await sameInAllModes(folder, [[], ['-r', 'all']]);
      }
    }
  }));

test('refcount table entries that no number holds', () =>
  inScratch(async (folder) => {
    await makeImage(folder);
    change(folder, (bytes) => {
      const table = Number(bytes.readBigUInt64BE(48));
      const entries = [0xffff_ffff_ffff_e200n, 0x8000_0000_0000_0200n, 0x8000_0000_0000_1000n];
      entries.push(0x4000_0000_0000_0200n, 0xffff_ffff_ffff_f000n, 0x4000_0000_0000_0000n);
      for (const [index, entry] of entries.entries()) {
        bytes.writeBigUInt64BE(entry, table + 8 * (index + 1));
      }
    });
    await sameInAllModes(folder, [[], ['--output=json']]);
  }));

test.run();
