// `create` must print what qemu-img prints, refuse what it refuses in the same words, and leave
// the same bytes. Of what there are many of, each run takes some; SLOW=1 takes all.
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { Qcow2Error } from '../../src/base/errors.ts';
import { create } from '../../src/cli/commands/create.ts';
import { standIn } from '../../src/storage/stand-in.ts';
import { qemuSuite } from '../oracle.ts';
import { SEED, someOf } from '../random.ts';
import { difference, eachAtOnce, inScratch, qemuImg, tool } from '../tool.ts';
import { type Outcome, ours, theirs } from './image-command.ts';

/** Compares both tools on one command line, each in a folder of its own. */
async function same(args: readonly string[], setUp?: (folder: string) => void): Promise<Outcome> {
  return inScratch(async (folder) => {
    const folders = [`${folder}/ours`, `${folder}/theirs`] as const;
    for (const one of folders) {
      mkdirSync(one);
      setUp?.(one);
    }
    const [mine, expected] = await Promise.all([
      ours(create, folders[0], args),
      theirs('create', folders[1], args),
    ]);
    const line = `create ${args.join(' ')} (SEED=${SEED})`;
    assert.equal(mine, expected, line);
    const [names, wanted] = folders.map((one) => readdirSync(one).sort()) as [string[], string[]];
    assert.equal(names, wanted, `${line}: files`);
    for (const name of wanted) {
      const [left, right] = folders.map((one) => `${one}/${name}`) as [string, string];
      if (!statSync(right).isFile()) continue;
      const differs = difference(readFileSync(left), readFileSync(right));
      assert.is(differs, '', `${line}: ${name}`);
    }
    return expected;
  });
}

const each = (lines: Iterable<string>, setUp?: (folder: string) => void) =>
  eachAtOnce(lines, async (line) => {
    await same(line === '' ? [] : line.split(' '), setUp);
  });

const qcow2 = (options: string, rest: string) => `-f qcow2 -o ${options} ${rest}`;

const test = qemuSuite('create, against qemu-img');

test('every option of a plain image', async () => {
  const lines = ['-f qcow2 image 1M', '-q -f qcow2 image 1M', '-fqcow2 image 0', 'image 1000'];
  for (const compat of ['0.10', '1.1', 'v2', 'v3']) {
    for (const cluster of ['512', '4k', '64k', '2M']) {
      lines.push(qcow2(`compat=${compat},cluster_size=${cluster}`, 'image 300M'));
    }
  }
  for (const bits of [1, 2, 4, 8, 32, 64]) {
    lines.push(qcow2(`refcount_bits=${bits},cluster_size=1k`, 'image 777777777'));
  }
  for (const more of ['lazy_refcounts', 'lazy_refcounts=yes', 'nolazy_refcounts', 'extended_l2']) {
    lines.push(qcow2(more, 'image 5G'));
  }
  lines.push(qcow2('compression_type=zstd', 'image 5G'), qcow2('extended_l2=on', 'image 1000'));
  lines.push(qcow2('cluster_size=4k -o compat=0.10,cluster_size=8k', 'image 1M'));
  lines.push(qcow2('size=1.5M,nocow=off,extent_size_hint=1M,encryption=off', 'image'));
  lines.push(qcow2('refcount_bits=010,cluster_size=0x1000', 'image 1T'), 'file:image 3k');
  await each(lines);
});

test('preallocated images', async () => {
  const lines: string[] = [];
  for (const mode of ['metadata', 'falloc', 'full']) {
    for (const size of ['0', '1000', '100000', '3M', '5000000']) {
      for (const more of ['cluster_size=64k', 'cluster_size=512', 'cluster_size=2k,compat=0.10']) {
        lines.push(qcow2(`preallocation=${mode},${more}`, `image ${size}`));
      }
      lines.push(qcow2(`preallocation=${mode},extended_l2=on,cluster_size=16k`, `image ${size}`));
    }
    for (const bits of [1, 8, 64]) {
      const more = `refcount_bits=${bits},cluster_size=1k,lazy_refcounts=on`;
      lines.push(qcow2(`preallocation=${mode},${more}`, 'image 9M'));
    }
    lines.push(qcow2(`preallocation=${mode},cluster_size=2M`, 'image 11M'));
  }
  lines.push(qcow2('preallocation=metadata', 'image 20G'));
  lines.push(qcow2('preallocation=metadata,cluster_size=4k,refcount_bits=64', 'image 300M'));
  // Files of these sizes are compared for what they hold in the test of resizing.
  await each(
    someOf(
      lines.filter((line) => !/20G/.test(line)),
      30,
    ),
  );
});

test('the front of a data file has its room', async () => {
  await inScratch(async (folder) => {
    await qemuImg(['create', '-q', '-f', 'raw', 'source', '1M'], { cwd: folder });
    const made = ['off', 'metadata', 'falloc', 'full'].map((mode) => [
      'create',
      '-f',
      'qcow2',
      mode,
    ]);
    for (const [verb = '', ...rest] of [...made, ['convert', '-fraw', '-Oqcow2', 'off']]) {
      const mode = rest.pop();
      const blocks = [];
      for (const [name, run] of Object.entries({ ours: tool, theirs: qemuImg })) {
        const options = ['-o', `data_file=${name}.data,preallocation=${mode}`];
        const what = verb === 'create' ? [name, '1M'] : ['source', name];
        await run([verb, '-q', ...rest, ...options, ...what], { cwd: folder });
        blocks.push(statSync(`${folder}/${name}.data`).blocks);
        rmSync(`${folder}/${name}.data`);
      }
      assert.is(blocks[0], blocks[1], `${verb} ${mode}`);
    }
  });
});

test('the front of a raw image has its room', async () => {
  await inScratch(async (folder) => {
    for (const size of ['0', '1', '512', '4095', '4k', '1M']) {
      const blocks = [];
      for (const [name, run] of Object.entries({ ours: tool, theirs: qemuImg })) {
        await run(['create', '-q', '-f', 'raw', name, size], { cwd: folder });
        blocks.push(statSync(`${folder}/${name}`).blocks);
      }
      assert.is(blocks[0], blocks[1], size);
    }
  });
});

test('external data files', async () => {
  const lines: string[] = [];
  for (const size of ['0', '1000', '100000', '3M']) {
    for (const mode of ['off', 'metadata', 'falloc', 'full']) {
      for (const raw of ['on', 'off']) {
        const options = `preallocation=${mode},data_file=data,data_file_raw=${raw}`;
        lines.push(qcow2(options, `image ${size}`));
        lines.push(qcow2(`${options},cluster_size=512`, `image ${size}`));
      }
    }
    lines.push(qcow2('data_file=a,,b', `image ${size}`), qcow2('data_file=file:x', `y ${size}`));
  }
  const some = someOf(lines, 24);
  some.push(qcow2('data_file=sub/data', 'sub/image 1M'), qcow2('data_file=old', 'image 1M'));
  await each(some, (folder) => {
    mkdirSync(`${folder}/sub`);
    writeFileSync(`${folder}/old`, 'what was there before');
  });
});

test('backing files', async () => {
  const lines = [
    '-b base -F qcow2 image',
    '-b base -F raw image',
    '-b odd -F raw image',
    '-b odd -F raw image 10k',
    '-b base image',
    '-b odd image',
    '-b odd -F qcow2 image',
    '-b odd -F bogus image',
    '-b missing image 1M',
    '-b missing -F qcow2 image 1M',
    '-b missing -F qcow2 -u image 1M',
    '-b missing -F qcow2 -u image',
    '-b missing -u image',
    '-b missing -F bogus -u image 1M',
    '-b broken -F qcow2 image',
    '-b broken -F qcow2 -u image 1M',
    '-b base -F qcow2 sub/image',
    '-b sub/base -F qcow2 image',
    '-b ../base -F qcow2 sub/image',
    '-b image -F qcow2 image',
    '-b ./image -F qcow2 image',
    '-F raw image 1M',
    '-F bogus image 1M',
    '-b a,b -F raw -u image 1M',
    '-o backing_file=odd,backing_fmt=raw -b base -F qcow2 image',
    '-o backing_file=odd,backing_fmt=raw image',
    '-o backing_file= image 1M',
    '-b base -F qcow2 -o preallocation=metadata image',
    '-b base -F qcow2 -o extended_l2=on,preallocation=metadata image',
    '-b base -F qcow2 -o extended_l2=on,preallocation=full image 100k',
    '-b base -F qcow2 -o data_file=data,data_file_raw=on image',
    '-b base -F qcow2 -o data_file=data image',
    '-b base -F qcow2 -o compat=0.10,cluster_size=512 image',
    `-b ${'a'.repeat(1023)} -F raw -u image 1M`,
    `-b ${'a'.repeat(1024)} -F raw -u image 1M`,
    `-b ${'a'.repeat(500)} -F raw -u -o cluster_size=512 image 1M`,
    `-b ${'a'.repeat(300)} -F raw -u -o cluster_size=512 image 1M`,
  ];
  const made: Record<string, Buffer> = {};
  await inScratch(async (folder) => {
    const base = ['-q', '-f', 'qcow2', 'base', '1M'];
    const broken = ['-q', '-f', 'qcow2', '-u', '-b', 'gone', '-F', 'raw', 'broken', '1M'];
    await Promise.all([theirs('create', folder, base), theirs('create', folder, broken)]);
    for (const name of ['base', 'broken']) made[name] = readFileSync(`${folder}/${name}`);
  });
  await each(
    lines.map((line) => `-f qcow2 ${line}`),
    (folder) => {
      mkdirSync(`${folder}/sub`);
      writeFileSync(`${folder}/odd`, Buffer.alloc(100_001, 1));
      for (const [name, bytes] of Object.entries(made)) writeFileSync(`${folder}/${name}`, bytes);
      writeFileSync(`${folder}/sub/base`, made.base as Buffer);
    },
  );
});

test('options that are wrong, or go wrong together', async () => {
  const old = ['extended_l2=on', 'lazy_refcounts=on', 'refcount_bits=8', 'data_file=data'];
  old.push('data_file=data,data_file_raw=on', 'compression_type=zstd', 'data_file_raw=on');
  const wrong = ['compat=foo', 'cluster_size=3000', 'refcount_bits=3', 'preallocation=foo'];
  wrong.push('compression_type=foo', 'encrypt.format=foo', 'encrypt.iter-time=5');
  wrong.push('extended_l2=on,cluster_size=8k', 'data_file_raw=on', 'size=7E', 'size=8E');
  const lines = new Set<string>();
  for (const [index, one] of wrong.entries()) {
    for (const other of [...wrong.slice(index), ...old.map((option) => `compat=0.10,${option}`)]) {
      lines.add(one === other ? one : `${one},${other}`);
    }
  }
  for (const [index, one] of old.entries()) {
    for (const other of old.slice(index)) lines.add(`compat=0.10,${one},${other}`);
  }
  lines.add('encryption=on,encrypt.format=luks').add('data_file=none/data');
  for (const name of ['cluster_size', 'refcount_bits', 'lazy_refcounts', 'compat', 'bogus']) {
    const values = ['', '0', '-1', '256', '4M', '0x200', '16k', 'foo', '1e3', '.5M', '0.5M', 'ON'];
    values.push('16E', '99999999999999999999', '4kk', 'a,,b');
    lines.add(name);
    for (const value of values) lines.add(`${name}=${value}`);
  }
  for (const list of [
    ',',
    'x,',
    ',x',
    'compat=1.1,,',
    'nocow',
    '=1',
    'size=1M',
    'help=1',
    'a,b=1',
  ]) {
    lines.add(list);
  }
  await each(
    someOf([...lines], 100).map((list) =>
      qcow2(list, `image${/(^|,)size=/.test(list) ? '' : ' 1M'}`),
    ),
  );
});

test('sizes that are wrong, or too large', async () => {
  const sizes = [
    '',
    '1',
    '511',
    '1.5k',
    '1.3',
    '0x400',
    '1kk',
    'foo',
    '-5',
    '1P',
    '7E',
    '8E',
    '9E',
  ];
  sizes.push('9223372036854775807', '9223372036854775296', '9223372036854775808');
  sizes.push('99999999999999999999', '64T', '9223372035781033984', '9223372035781033985');
  const lines = sizes.map((size) => ['-f', 'qcow2', '--', 'image', size]);
  for (const size of ['', '1.3', '8E', '513']) lines.push(['-f', 'raw', 'image', size]);
  lines.push(['-f', 'qcow2', '-o', 'cluster_size=512', 'image', '200G']);
  lines.push(['-f', 'qcow2', '-o', 'cluster_size=2M', 'image', '2E']);
  await eachAtOnce(lines, async (line) => void (await same(line)));
});

test('raw images', async () => {
  const lines = ['image 1M', 'image 513', 'image', '-b x image 1M', '-F raw image 1M'];
  for (const list of ['preallocation=off', 'preallocation=falloc', 'preallocation=full']) {
    lines.push(`-o ${list} image 1000000`, `-o ${list},size=3M image`);
  }
  for (const list of ['preallocation=foo', 'preallocation', 'bogus=1']) {
    lines.push(`-o ${list} image 1M`, `-o ${list} none/image 1M`);
  }
  lines.push(
    '-o cluster_size=1 image 1M',
    '-o nocow=on image 1M',
    '-o extent_size_hint=1M image 1',
  );
  await each(lines.map((line) => `-f raw ${line}`));
  await inScratch(async (folder) => {
    // QEMU leaves an empty file behind.
    for (const args of [
      ['-o', 'preallocation=metadata', 'image', '1M'],
      ['image', '7E'],
    ]) {
      assert.equal(await ours(create, folder, args), await theirs('create', folder, args));
    }
  });
});

test('command lines that are wrong, and help', async () => {
  const lines = ['', '-f qcow2', '-f', '-o', '-e image 1M', '-f bogus image 1M', 'image 1M 2M'];
  lines.push('-o help', '-f qcow2 -o help', '-f qcow2 -o compat=1.1,help image', '-o ? image');
  lines.push('-f bogus -o help', '-f qcow2 -o help= image', '-f qcow2 image 1M --bogus');
  lines.push('none/image 1M', '-f qcow2 none/image 1M', '-f qcow2 . 1M', 'bogus:image 1M');
  lines.push('-f qcow2 -o compat=foo none/image 1M', '-f qcow2 -o data_file= image 1M');
  await each(lines);
  await same(['-f', 'qcow2', '', '1M']);
});

test('a file that is there is replaced, and kept where the options are refused', async () => {
  const setUp = (folder: string) => writeFileSync(`${folder}/image`, 'what was there before');
  await each(['-f qcow2 image 1M', '-f raw image 1M'], setUp);
  await inScratch(async (folder) => {
    setUp(folder);
    for (const options of [
      'cluster_size=3000',
      'compat=foo',
      'data_file=none/x',
      'data_file=image',
    ]) {
      assert.is(
        (await ours(create, folder, ['-f', 'qcow2', '-o', options, 'image', '1M'])).code,
        1,
      );
    }
    assert.is((await ours(create, folder, ['-f', 'qcow2', 'image', '7E'])).code, 1);
    assert.is(readFileSync(`${folder}/image`, 'utf8'), 'what was there before');
    assert.equal(readdirSync(folder), ['image']);
  });
});

test('an image that cannot be finished is not there, nor is its data file', async () => {
  await inScratch(async (folder) => {
    for (const there of [false, true]) {
      if (there) for (const name of ['image', 'data']) writeFileSync(`${folder}/${name}`, 'old');
      const args = ['-f', 'qcow2', '-o', 'data_file=data', 'image', '1M'];
      const { code } = await ours(create, folder, args, (file) => {
        if (file.name !== 'data') return file;
        return standIn(file, {
          truncate: () => {
            throw new Qcow2Error('NO_SPACE', 'no room');
          },
        });
      });
      assert.is(code, 1);
      assert.equal(readdirSync(folder), [], there ? 'over files that were there' : 'new files');
    }
  });
});

test.run();
