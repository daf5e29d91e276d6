// Encrypted images of every layout, which this library's tools and QEMU's change in turns: what
// either reads is what was written, and what either says of them is the same.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { type Random, rng, SEED, someOf } from '../random.ts';
import { askedAlike, difference, inScratch, must, oftenEnough, TOOL } from '../tool.ts';

const IO = resolve('dist/qcow2-io.js');
const MIB = 2 ** 20;
const SECRETS = ['--object', 'secret,id=s,data=first', '--object', 'secret,id=t,data=second'];
/** Bytes that no table of an image is full of, whatever its refcounts' width. */
const PATTERNS = [0x5b, 0x6d, 0x7a, 0x9c, 0xb3, 0xc7];

interface Layout {
  readonly encryption: string;
  readonly version: 2 | 3;
  readonly clusterBits: number;
  readonly refcountBits: number;
  readonly extendedL2: boolean;
  readonly dataFile: boolean;
}

const ENCRYPTIONS = [
  'aes',
  'luks',
  'luks,encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv',
  'luks,encrypt.cipher-mode=ctr,encrypt.ivgen-alg=plain,encrypt.hash-alg=sha1',
];

/** All that QEMU can make. */
function allLayouts(): Layout[] {
  const list: Layout[] = [];
  for (const encryption of ENCRYPTIONS) {
    for (const clusterBits of [9, 12, 16, 21]) {
      list.push(layout({ encryption, clusterBits, version: 2 }));
      for (const refcountBits of [1, 2, 4, 8, 16, 32, 64]) {
        for (const extendedL2 of clusterBits >= 14 ? [false, true] : [false]) {
          for (const dataFile of [false, true]) {
            list.push(layout({ encryption, clusterBits, refcountBits, extendedL2, dataFile }));
          }
        }
      }
    }
  }
  return list;
}

function layout(some: Partial<Layout>): Layout {
  return {
    ...{ encryption: 'luks', version: 3, clusterBits: 16, refcountBits: 16 },
    ...{ extendedL2: false, dataFile: false, ...some },
  };
}

function optionsOf(one: Layout, secret = 's'): string {
  const quick = one.encryption.startsWith('luks') ? ['encrypt.iter-time=10'] : [];
  return [
    `encrypt.format=${one.encryption},encrypt.key-secret=${secret}`,
    ...quick,
    `cluster_size=${2 ** one.clusterBits}`,
    one.version === 2 ? 'compat=0.10' : `compat=1.1,refcount_bits=${one.refcountBits}`,
    ...(one.extendedL2 ? ['extended_l2=on'] : []),
    ...(one.dataFile ? ['data_file=data.raw'] : []),
  ].join(',');
}

const nameOf = (file: string, secret = 's') =>
  `driver=qcow2,file.filename=${file},encrypt.key-secret=${secret}`;

/** Both sets of tools, in one folder. */
class Tools {
  private readonly done: string[] = [];

  constructor(
    readonly folder: string,
    private readonly random: Random,
  ) {}

  /** Runs a command of the image tool, whoever's. */
  img(...args: string[]): Promise<string> {
    return this.random.oneIn(2) ? this.ourImg(...args) : this.theirImg(...args);
  }

  ourImg(...args: string[]): Promise<string> {
    return this.run(process.execPath, [TOOL, ...this.withSecrets(args)]);
  }

  async theirImg(...args: string[]): Promise<string> {
    let output = '';
    await oftenEnough(async () => {
      output = await this.run(requireQemu().img, this.withSecrets(args));
    });
    return output;
  }

  /** Runs commands on an image, whoever's tool. */
  async io(image: string, ...commands: string[]): Promise<void> {
    const ours = this.random.oneIn(2);
    const lines = commands.flatMap((line) => ['-c', line]);
    const args = [...(ours ? [IO] : []), ...SECRETS, '--image-opts', ...lines, image];
    const output = await this.run(ours ? process.execPath : requireQemu().io, args);
    const what = `${ours ? 'ours' : 'theirs'}: ${commands.join('; ')}, SEED=${SEED}\n${output}`;
    assert.not.match(output, /failed|error|invalid/i, what);
  }

  private async run(program: string, args: readonly string[]): Promise<string> {
    const what = args.filter((arg) => !/^secret,|^--object$/.test(arg)).join(' ');
    this.done.push(`${basename(program)} ${what}`);
    try {
      return (await must(program, args, { cwd: this.folder })).toString();
    } catch (cause) {
      throw new Error(`SEED=${SEED}, after\n${this.done.join('\n')}\n${cause}`, { cause });
    }
  }

  private withSecrets([command = '', ...rest]: readonly string[]): string[] {
    return [command, ...SECRETS, ...rest];
  }
}

/** A disk that is written through both tools, and what it has to hold. */
class Story {
  content: Buffer;
  private readonly snapshots = new Map<string, Buffer>();
  private taken = 0;

  constructor(
    private readonly tools: Tools,
    private readonly random: Random,
    private readonly layout: Layout,
    /** How it is named, secrets and all. */
    public image: string,
    size: number,
  ) {
    this.content = Buffer.alloc(size);
  }

  async write(count: number): Promise<void> {
    const { random, content } = this;
    const commands: string[] = [];
    for (let index = 0; index < count; index++) {
      const at = random.below(content.length / 512) * 512;
      const most = random.oneIn(3) ? 400_000 : 9000;
      const odd = random.oneIn(3) ? random.below(512) : 0;
      const from = Math.min(at + odd, content.length - 1);
      const length = Math.min(content.length - from, 1 + random.below(most));
      if (random.oneIn(5)) {
        commands.push(`write -z ${from} ${length}`);
        content.fill(0, from, from + length);
        continue;
      }
      const pattern = random.pick(PATTERNS);
      commands.push(`write -P ${pattern} ${from} ${length}`);
      content.fill(pattern, from, from + length);
    }
    await this.tools.io(this.image, ...commands);
  }

  /** A snapshot, changes, and perhaps the way back. */
  async snapshot(): Promise<void> {
    const { tools, random, layout, image } = this;
    // Clusters that two snapshots share need a count of 2, and external files have none.
    if (layout.refcountBits === 1 || layout.dataFile) return;
    // QEMU counts the snapshot that is applied once more before it lets go of what it replaces.
    if (layout.refcountBits === 2 && this.snapshots.size > 0) return;
    const change = (flag: string, name: string) =>
      tools.img('snapshot', '--image-opts', flag, name, image);
    const name = `s${this.taken++}`;
    await change('-c', name);
    this.snapshots.set(name, Buffer.from(this.content));
    await this.write(3);
    if (random.oneIn(2)) {
      await change('-a', name);
      this.content = Buffer.from(this.snapshots.get(name) as Buffer);
    }
    await this.write(2);
    const bytes = this.snapshots.get(name) as Buffer;
    const out = ['-l', `snapshot.name=${name}`, '-O', 'raw', image, 'snapshot.raw'];
    await tools.img('convert', '--image-opts', ...out);
    assert.is(difference(this.file('snapshot.raw'), bytes), '', this.about());
    if (!random.oneIn(2)) return;
    await change('-d', name);
    this.snapshots.delete(name);
  }

  async grow(): Promise<void> {
    const { tools, image, content } = this;
    // Snapshots of version 2 do not say how large the disk was.
    if (this.layout.version === 2 && this.snapshots.size > 0) return;
    const more = (1 + this.random.below(300)) * 512;
    await tools.img('resize', '-q', '--image-opts', image, String(content.length + more));
    this.content = Buffer.concat([content, Buffer.alloc(more)]);
  }

  /** What both tools read, and say. */
  async verify(): Promise<void> {
    const { tools, image, content } = this;
    const about = this.about();
    for (const img of [tools.ourImg.bind(tools), tools.theirImg.bind(tools)]) {
      await img('convert', '--image-opts', '-O', 'raw', image, 'plain.raw');
      assert.is(difference(this.file('plain.raw'), content), '', about);
    }
    writeFileSync(`${tools.folder}/model.raw`, content);
    const sameTold = async (...args: string[]) => {
      const [ours, theirs] = await askedAlike(async () => {
        return [await tools.ourImg(...args), await tools.theirImg(...args)];
      });
      assert.is(ours, theirs, `${args[0]}, ${about}`);
      return ours;
    };
    const model = 'driver=raw,file.filename=model.raw';
    await sameTold('compare', '--image-opts', image, model);
    await sameTold('check', '--image-opts', image);
    // This one opens no backing file, and has no use for its secret.
    await sameTold('info', '--image-opts', image.replace(/,backing.*/, ''));
    await sameTold('measure', '-O', 'qcow2', '--image-opts', image);
    await sameTold('map', '--output=json', '--image-opts', image);
  }

  /** No file of the folder but those that are meant to be plain has a run of a pattern. */
  verifyHidden(): void {
    const { folder } = this.tools;
    for (const name of readdirSync(folder)) {
      if (/^(plain|model|snapshot)\.raw$/.test(name)) continue;
      const bytes = this.file(name);
      for (const pattern of PATTERNS) {
        const at = bytes.indexOf(Buffer.alloc(24, pattern));
        assert.is(at, -1, `plain bytes at ${at} of ${name}, ${this.about()}`);
      }
    }
  }

  about(): string {
    return `${JSON.stringify(this.layout)}, SEED=${SEED}`;
  }

  private file(name: string): Buffer {
    return readFileSync(`${this.tools.folder}/${name}`);
  }
}

const test = qemuSuite('encrypted images of every layout, against QEMU');

test('written, snapshotted, resized and read by both tools in turns', async () => {
  const random = rng(SEED);
  for (const one of someOf(allLayouts(), 2, random)) {
    await inScratch(async (folder) => {
      const tools = new Tools(folder, random);
      const size = 2 * MIB + random.below(8) * 512;
      const create = ['create', '-q', '-f', 'qcow2', '-o', optionsOf(one), 'image'];
      // QEMU takes a second for each, wherever it has to measure itself.
      await (random.oneIn(4)
        ? tools.img(...create, `${size}`)
        : tools.ourImg(...create, `${size}`));
      const story = new Story(tools, random, one, nameOf('image'), size);
      await story.write(4);
      await story.snapshot();
      await story.write(3);
      await story.grow();
      await story.snapshot();
      await story.write(3);
      await story.verify();
      story.verifyHidden();
    });
  }
});

test('chains whose images have secrets of their own: rebase, commit', async () => {
  const random = rng(SEED + 1);
  for (const one of someOf(allLayouts(), 1, random)) {
    await inScratch(async (folder) => {
      const tools = new Tools(folder, random);
      const plainFile = { ...one, dataFile: false };
      const size = MIB + random.below(300) * 512;
      const make = (name: string, secret: string, backing: readonly string[]) =>
        tools.ourImg(
          ...['create', '-q', '-f', 'qcow2', '-o', optionsOf(plainFile, secret), ...backing],
          ...[name, String(size)],
        );
      await make('base', 't', []);
      const base = new Story(tools, random, plainFile, nameOf('base', 't'), size);
      await base.write(5);
      const over = ['-u', '-b', 'base', '-F', 'qcow2'];
      await make('top', 's', over);
      const image = `${nameOf('top')},backing.encrypt.key-secret=t`;
      const top = new Story(tools, random, plainFile, image, size);
      top.content = Buffer.from(base.content);
      await top.write(5);
      await top.verify();
      await tools.img('commit', '-q', '--image-opts', image);
      base.content = Buffer.from(top.content);
      await base.verify();
      await top.write(3);
      // A new backing file is named without options, so that it has no secret; and QEMU cannot
      // tell where an image is that has options.
      const below = `${folder}/below.raw`;
      writeFileSync(below, Buffer.alloc(size, 0x77));
      await tools.img('rebase', '-b', below, '-F', 'raw', '--image-opts', image);
      top.image = nameOf('top');
      await top.verify();
      top.verifyHidden();
    });
  }
});

test('VM state is encrypted, too, and read by the other tool', async () => {
  const random = rng(SEED + 2);
  for (const one of someOf(allLayouts(), 1, random)) {
    await inScratch(async (folder) => {
      const tools = new Tools(folder, random);
      const plainFile = { ...one, dataFile: false };
      const create = ['create', '-q', '-f', 'qcow2', '-o', optionsOf(plainFile), 'image'];
      await tools.ourImg(...create, String(MIB));
      const story = new Story(tools, random, plainFile, nameOf('image'), MIB);
      await story.write(3);
      for (const pattern of PATTERNS.slice(0, 3)) {
        const at = random.below(100) * 512;
        const length = (1 + random.below(200)) * 512;
        await tools.io(story.image, `write -b -P ${pattern} ${at} ${length}`);
        await tools.io(story.image, `read -b -P ${pattern} ${at} ${length}`);
      }
      await story.verify();
      story.verifyHidden();
    });
  }
});

test.run();
