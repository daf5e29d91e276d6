// Secrets and images named by options: the built tools against QEMU's, messages and all.
import { spawn } from 'node:child_process';
import { createCipheriv } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { difference, inScratch, must, oftenEnough, qemuImg, run, TOOL } from '../tool.ts';

const IO = resolve('dist/qcow2-io.js');
const SECRET = ['--object', 'secret,id=s,data=abc'];
const opts = (path: string, id = 's') =>
  `driver=qcow2,file.filename=${path},encrypt.key-secret=${id}`;

const strip = (text: string) => text.replace(/^(qemu-img|qcow2-img\.js|qcow2-img): /gm, 'P: ');

/** Both tools on one command line: they end alike, and say the same on standard error. */
async function same(folder: string, args: readonly string[]): Promise<void> {
  // One after the other: some of them make files, and lock them.
  const ours = await run(process.execPath, [TOOL, ...args], { cwd: folder });
  const theirs = await run(requireQemu().img, args, { cwd: folder });
  const what = args.join(' ');
  assert.is(strip(ours.stderr), strip(theirs.stderr), what);
  assert.is(ours.code, theirs.code, what);
}

const test = qemuSuite('secrets, against QEMU');

test('what is wrong with a secret, in the same words', async () => {
  await inScratch(async (folder) => {
    await qemuImg(['create', '-q', '-f', 'raw', `${folder}/disk`, '1M']);
    for (const object of [
      'secret',
      'secret,id=s',
      'secret,data=x',
      'foo,id=x',
      'iothread,id=x',
      'id=3x,qom-type=secret,data=x',
      'secret,id=s,file=nope',
      'secret,id=s,data=x,file=y',
      'secret,id=s,data=!!!,format=base64',
      'secret,id=s,data=x,format=hex',
      'secret,id=s,data=x,foo=bar',
      'secret,id=s,data=x',
    ]) {
      await same(folder, ['info', '--object', object, 'missing']);
    }
    await same(folder, ['info', ...SECRET, ...SECRET, 'missing']);
    await same(folder, ['info', '--image-opts', '-f', 'raw', 'file.filename=disk']);
    for (const name of ['driver=raw', 'driver=raw,file.filename=nope', 'nothing']) {
      await same(folder, ['info', '--image-opts', name]);
    }
  });
});

/** A secret that another one, `k`, is the key of. */
function encryptedSecret(data: string): string {
  const [key, iv] = [Buffer.alloc(32, 7), Buffer.alloc(16, 9)];
  const cipher = createCipheriv('aes-256-cbc', key, iv);
  const bytes = Buffer.concat([cipher.update(data), cipher.final()]).toString('base64');
  return `secret,id=s,keyid=k,iv=${iv.toString('base64')},format=base64,data=${bytes}`;
}
const KEY = [
  '--object',
  `secret,id=k,format=base64,data=${Buffer.alloc(32, 7).toString('base64')}`,
];

test('secrets that are encrypted with another one', async () => {
  await inScratch(async (folder) => {
    const made = 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,cluster_size=4k';
    const create = ['create', '-q', ...SECRET, '-f', 'qcow2', '-o', made, 'image', '64k'];
    await oftenEnough(() => qemuImg(create, { cwd: folder }));
    for (const secret of [encryptedSecret('abc'), encryptedSecret('wrong')]) {
      const line = ['convert', ...KEY, '--object', secret, '--image-opts', '-O', 'raw'];
      await same(folder, [...line, opts('image'), 'raw']);
    }
  });
});

test('what is wrong with an encrypted secret, in the same words', async () => {
  await inScratch(async (folder) => {
    const right = encryptedSecret('abc');
    for (const object of [
      right,
      right.replace(/iv=[^,]*,/, ''),
      right.replace(/iv=[^,]*/, 'iv=AAAA'),
      right.replace(/iv=[^,]*/, 'iv=A*A'),
      right.replace('keyid=k', 'keyid=x'),
      right.replace('keyid=k', 'keyid='),
      right.replace('format=base64', 'format=raw'),
      right.replace(/data=.*/, 'data=AAAAAAAAAAAAAAAAAAAAAA=='),
      right.replace(/data=.*/, 'data='),
      right.replace(/,data=.*/, ''),
      'secret,id=s,data=x,iv=no',
    ]) {
      await same(folder, ['info', ...KEY, '--object', object, 'missing']);
    }
    const short = ['--object', 'secret,id=k,data=short'];
    await same(folder, ['info', ...short, '--object', right, 'missing']);
  });
});

test('Base64 is read as there, whole or not', async () => {
  await inScratch(async (folder) => {
    for (const text of [
      'YWJj',
      'YWI=',
      'YW\nJj\n',
      'YWJjYQ',
      'YWJjYW',
      'YQ=a',
      'YWJj\r\n',
      'YWJj=',
    ]) {
      writeFileSync(`${folder}/key`, text);
      const key = ['--object', 'secret,id=s,format=base64,file=key'];
      const made = 'encrypt.format=aes,encrypt.key-secret=s,cluster_size=4k';
      await same(folder, ['create', '-q', ...key, '-f', 'qcow2', '-o', made, 'image', '4k']);
      const { code } = await run(requireQemu().img, ['info', ...key, 'image'], { cwd: folder });
      if (code !== 0) continue;
      const write = ['--image-opts', opts('image'), '-c', 'write -P 5 0 4k'];
      await must('qemu-io', [...key, ...write], { cwd: folder });
      const read = ['--image-opts', opts('image'), '-c', 'read -P 5 0 4k'];
      const done = await must(process.execPath, [IO, ...key, ...read], { cwd: folder });
      assert.not.match(done.toString(), /verification failed/, JSON.stringify(text));
    }
  });
});

test('what is wrong with an encryption, in the same words', async () => {
  await inScratch(async (folder) => {
    for (const options of [
      'encrypt.format=luks',
      'encrypt.format=luks,encrypt.key-secret=nope',
      'encrypt.format=aes',
      'encrypt.format=aes,encrypt.key-secret=s,encrypt.cipher-alg=aes-128',
      'encrypt.key-secret=s',
      'encrypt.format=luks,encrypt.key-secret=s,encrypt.cipher-alg=foo',
      'encrypt.format=luks,encrypt.key-secret=s,encrypt.cipher-mode=foo',
      'encrypt.format=luks,encrypt.key-secret=s,encrypt.hash-alg=foo',
      'encrypt.format=luks,encrypt.key-secret=s,encrypt.cipher-alg=des',
    ]) {
      await same(folder, ['create', ...SECRET, '-f', 'qcow2', '-o', options, 'image', '1M']);
    }
    for (const format of ['aes', 'luks']) {
      const path = `${folder}/${format}`;
      const quick = format === 'luks' ? ',encrypt.iter-time=10' : '';
      const options = `encrypt.format=${format},encrypt.key-secret=s${quick}`;
      const line = ['create', '-q', ...SECRET, '-f', 'qcow2', '-o', options, path, '1M'];
      await oftenEnough(() => qemuImg(line));
      await same(folder, ['convert', '-O', 'raw', format, 'target']);
      await same(folder, ['convert', '--image-opts', '-O', 'raw', opts(format, 'no'), 'target']);
    }
    const wrong = ['--object', 'secret,id=s,data=wrong'];
    await same(folder, ['convert', ...wrong, '--image-opts', '-O', 'raw', opts('luks'), 'target']);
  });
});

test('the tools make, write, resize and read encrypted images as QEMU does', async () => {
  await inScratch(async (folder) => {
    writeFileSync(`${folder}/key`, Buffer.from('abc').toString('base64'));
    const file = ['--object', 'secret,id=s,file=key,format=base64'];
    for (const format of ['aes', 'luks']) {
      const ours = async (script: string, args: readonly string[]) => {
        return (await must(process.execPath, [script, ...args], { cwd: folder })).toString();
      };
      const quick = format === 'luks' ? ',encrypt.iter-time=10' : '';
      const options = `encrypt.format=${format},encrypt.key-secret=s${quick}`;
      await ours(TOOL, ['create', '-q', ...file, '-f', 'qcow2', '-o', options, 'image', '2M']);
      await ours(IO, [...file, '--image-opts', opts('image'), '-c', 'write -P 7 12345 100000']);
      await ours(TOOL, ['resize', ...SECRET, '--image-opts', opts('image'), '3M']);
      await ours(TOOL, ['convert', ...SECRET, '--image-opts', '-O', 'raw', opts('image'), 'ours']);
      const theirs = ['convert', ...SECRET, '--image-opts', '-O', 'raw', opts('image'), 'theirs'];
      await qemuImg(theirs, { cwd: folder });
      const [a, b] = ['ours', 'theirs'].map((name) => readFileSync(`${folder}/${name}`));
      assert.is(Buffer.compare(a as Buffer, b as Buffer), 0);
      assert.is((a as Buffer)[12345], 7);
      assert.is((a as Buffer).length, 3 * 2 ** 20);
      const info = (await ours(TOOL, ['info', 'image'])).replace(/^disk size.*$/m, '');
      const reference = (await qemuImg(['info', 'image'], { cwd: folder })).toString();
      assert.is(info, reference.replace(/^disk size.*$/m, ''));
    }
  });
});

test('each image of a chain has a secret of its own', async () => {
  await inScratch(async (folder) => {
    const both = [...SECRET, '--object', 'secret,id=t,data=other'];
    const create = ['create', '-q', ...both, '-f', 'qcow2'];
    const must2 = (args: readonly string[]) => must(process.execPath, args, { cwd: folder });
    const luks = (id: string) =>
      'encrypt.format=luks,encrypt.cipher-alg=aes-128,encrypt.iter-time=10,' +
      `encrypt.key-secret=${id}`;
    await must2([TOOL, ...create, '-o', luks('t'), 'base', '1M']);
    await must2([IO, ...both, '--image-opts', opts('base', 't'), '-c', 'write -P 9 0 70000']);
    const backing = ['-u', '-b', 'base', '-F', 'qcow2'];
    await must2([TOOL, ...create, ...backing, '-o', luks('s'), 'top', '1M']);
    const chain = `${opts('top')},backing.encrypt.key-secret=t`;
    await must2([IO, ...both, '--image-opts', chain, '-c', 'write -P 5 1000 1000']);
    for (const program of [[process.execPath, TOOL], [requireQemu().img]] as const) {
      const [name, ...script] = program;
      const line = ['convert', ...both, '--image-opts', '-O', 'raw', chain, 'plain'];
      await must(name as string, [...script, ...line], { cwd: folder });
      const plain = readFileSync(`${folder}/plain`);
      assert.equal([plain[999], plain[1000], plain[2000], plain[70000]], [9, 5, 9, 0]);
    }
    await same(folder, ['convert', ...both, '--image-opts', '-O', 'raw', opts('top'), 'plain']);
  });
});

test('key slots change as qemu-img changes them, and for the same reasons do not', async () => {
  await inScratch(async (folder) => {
    const all = [
      ...SECRET,
      '--object',
      'secret,id=n,data=new',
      '--object',
      'secret,id=w,data=wrong',
    ];
    const create = ['create', '-q', ...SECRET, '-f', 'qcow2', '-o'];
    const layout = 'encrypt.format=luks,encrypt.cipher-alg=aes-128,encrypt.key-secret=s';
    const line = [...create, `${layout},encrypt.iter-time=10`, 'image', '1M'];
    for (const tool of ['ours', 'theirs']) {
      mkdirSync(`${folder}/${tool}`);
      await must(process.execPath, [TOOL, ...line], { cwd: `${folder}/${tool}` });
    }
    const steps: readonly (readonly [string, (string | undefined)?, string?])[] = [
      ['state=active'],
      ['state=active,encrypt.new-secret=n,encrypt.old-secret=s'],
      ['state=active,encrypt.new-secret=n,encrypt.keyslot=9'],
      ['state=active,encrypt.new-secret=n,encrypt.keyslot=0'],
      ['state=active,encrypt.new-secret=n,encrypt.iter-time=10'],
      ['state=active,encrypt.new-secret=n,encrypt.keyslot=5,encrypt.iter-time=10'],
      ['state=inactive'],
      ['state=inactive,encrypt.new-secret=n'],
      ['state=inactive,encrypt.iter-time=10,encrypt.keyslot=1'],
      ['state=inactive,encrypt.keyslot=3'],
      ['state=inactive,encrypt.keyslot=9'],
      ['state=inactive,encrypt.keyslot=-1'],
      ['state=active,encrypt.new-secret=n,encrypt.keyslot=-1'],
      ['state=inactive,encrypt.keyslot=1,encrypt.old-secret=w'],
      ['state=inactive,encrypt.old-secret=w'],
      ['state=inactive,encrypt.old-secret=n'],
      ['state=inactive,encrypt.old-secret=s'],
      ['state=inactive,encrypt.keyslot=0'],
      ['new-secret=n'],
      ['state=foo'],
      ['state=active,encrypt.new-secret=n,encrypt.keyslot=0,encrypt.iter-time=10', '--force'],
      ['state=inactive,encrypt.keyslot=0', '--force', 'n'],
      ['state=active,encrypt.new-secret=s', undefined, 'n'],
    ];
    for (const [change, force, id] of steps) {
      const args = ['amend', ...all, ...(force ? [force] : []), '--image-opts'];
      const whole = [...args, '-o', `encrypt.${change}`, opts('image', id)];
      const ours = await run(process.execPath, [TOOL, ...whole], { cwd: `${folder}/ours` });
      let theirs = await run(requireQemu().img, whole, { cwd: `${folder}/theirs` });
      for (let attempt = 0; attempt < 100 && /CPU usage/.test(theirs.stderr); attempt++) {
        theirs = await run(requireQemu().img, whole, { cwd: `${folder}/theirs` });
      }
      assert.is(strip(ours.stderr), strip(theirs.stderr), change);
      assert.is(ours.code, theirs.code, change);
      const slots = await Promise.all(
        ['ours', 'theirs'].map(async (tool) => {
          const info = ['info', '--output=json', 'image'];
          const text = (await qemuImg(info, { cwd: `${folder}/${tool}` })).toString();
          const { encrypt } = JSON.parse(text)['format-specific'].data;
          return encrypt.slots.map((slot: { active: boolean }) => slot.active);
        }),
      );
      assert.equal(slots[0], slots[1], change);
    }
  });
});

/** An image without what is random in it: salts, digest, UUID, key material of the first slot. */
function withoutChance(path: string): Buffer {
  const bytes = readFileSync(path);
  const luks = bytes.indexOf(Buffer.from('4c554b53babe', 'hex'));
  if (luks < 0) return bytes;
  bytes.fill(0, luks + 112, luks + 208);
  bytes.fill(0, luks + 212, luks + 248);
  return bytes.fill(0, luks + 4096, luks + 4096 + bytes.readUInt32BE(luks + 108) * 4000);
}

test('a new image is that of qemu-img but for what is random', async () => {
  await inScratch(async (folder) => {
    for (const layout of [
      'encrypt.format=luks,encrypt.iter-time=10',
      'encrypt.format=luks,encrypt.iter-time=10,encrypt.cipher-alg=aes-128,cluster_size=4k',
      'encrypt.format=aes',
      'encrypt.format=aes,preallocation=full,compat=0.10',
    ]) {
      const line = [
        'create',
        '-q',
        ...SECRET,
        '-f',
        'qcow2',
        '-o',
        `${layout},encrypt.key-secret=s`,
      ];
      await must(process.execPath, [TOOL, ...line, 'ours', '3M'], { cwd: folder });
      await oftenEnough(() => qemuImg([...line, 'theirs', '3M'], { cwd: folder }));
      const [ours, theirs] = ['ours', 'theirs'].map((name) => withoutChance(`${folder}/${name}`));
      assert.is(difference(ours as Buffer, theirs as Buffer), '', layout);
    }
  });
});

test('snapshots and data files of encrypted images', async () => {
  await inScratch(async (folder) => {
    const here = { cwd: folder };
    const ours = (script: string, ...args: string[]) => {
      return must(process.execPath, [script, ...args], here);
    };
    const luks = 'encrypt.format=luks,encrypt.iter-time=10,encrypt.key-secret=s';
    for (const more of ['', ',data_file=data']) {
      const options = ['-o', `${luks}${more}`];
      await ours(TOOL, 'create', '-q', ...SECRET, '-f', 'qcow2', ...options, 'image', '1M');
      const write = (command: string) => {
        return ours(IO, ...SECRET, '--image-opts', opts('image'), '-c', command);
      };
      await write('write -P 1 0 100k');
      if (more === '') {
        await ours(TOOL, 'snapshot', ...SECRET, '--image-opts', '-c', 'first', opts('image'));
        await write('write -P 2 50k 100k');
        await ours(TOOL, 'snapshot', ...SECRET, '--image-opts', '-a', 'first', opts('image'));
      }
      await write('write -P 3 90000 1000');
      const reads = ['read -P 1 0 90000', 'read -P 3 90000 1000', 'read -P 1 91000 11400'];
      const commands = [...reads, 'read -P 0 110k 100k'].flatMap((line) => ['-c', line]);
      const line = [...SECRET, '--image-opts', ...commands, opts('image')];
      const output = await must(requireQemu().io, line, here);
      assert.not.match(output.toString(), /failed|error/i);
      await qemuImg(['check', ...SECRET, '--image-opts', opts('image')], here);
    }
  });
});

test('no secret is seen in the list of processes', async () => {
  await inScratch(async (folder) => {
    const args = ['--object', 'secret,id=s,data=verysecret'];
    const child = spawn(process.execPath, [IO, ...args], { cwd: folder });
    // By the time it asks for commands it has read its own.
    await new Promise((resolve) => child.stdout.once('data', resolve));
    const seen = readFileSync(`/proc/${child.pid}/cmdline`, 'latin1');
    const ended = new Promise((resolve) => child.once('close', resolve));
    child.stdin.end();
    await ended;
    assert.not.match(seen, /verysecret/);
  });
});

test.run();
