/**
 * Random steps with the images of a folder, for both tools: commands that go on from what the
 * earlier ones have left, mostly right ones.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type Header, isQcow2, parseBackingName, parseHeader } from '../../src/format/header.ts';
import { parseHeaderExtensions } from '../../src/format/header-extensions.ts';
import { parseSnapshotTable } from '../../src/format/snapshot-table.ts';
import type { Random } from '../random.ts';
import { PATTERN } from './random-image.ts';
import { junkFor } from './side-by-side.ts';

/** One command line. */
export interface Step {
  readonly program: 'img' | 'io';
  readonly args: readonly string[];
  /** It writes to images, or makes them. */
  readonly writes: boolean;
  /** Where clusters lie afterwards, and which, is up to each tool. */
  readonly loose: boolean;
}

/** What there is to know of an image. */
export interface Found {
  readonly name: string;
  readonly format: 'raw' | 'qcow2';
  readonly size: number;
  readonly cluster: number;
  readonly header: Header | undefined;
  readonly backing: string | undefined;
  readonly hasBitmaps: boolean;
  readonly hasDataFile: boolean;
  /** Virtual sizes that its snapshots have. */
  readonly snapshotSizes: readonly number[];
}

function look(folder: string, name: string): Found {
  const bytes = readFileSync(join(folder, name));
  if (!isQcow2(bytes) || bytes.length < 72) {
    const none = { header: undefined, backing: undefined, hasBitmaps: false, hasDataFile: false };
    const snapshotSizes: number[] = [];
    return { name, format: 'raw', size: bytes.length, cluster: 512, ...none, snapshotSizes };
  }
  const header = parseHeader(bytes);
  const { bitmaps, bitmapsInconsistent, dataFileName } = parseHeaderExtensions(bytes, header);
  return {
    name,
    format: 'qcow2',
    size: header.size,
    cluster: 2 ** header.clusterBits,
    header,
    backing: parseBackingName(bytes, header),
    hasBitmaps: bitmaps !== undefined || bitmapsInconsistent,
    hasDataFile: dataFileName !== undefined,
    snapshotSizes: snapshotSizes(bytes, header),
  };
}

function snapshotSizes(bytes: Uint8Array, header: Header): number[] {
  const { snapshotCount: count, snapshotsOffset: at, size: diskSize } = header;
  const snapshots = parseSnapshotTable(bytes.subarray(at), at, { count, diskSize, lenient: true });
  return snapshots.map(({ virtualSize }) => virtualSize);
}

/** The images of a folder. */
export function imagesOf(folder: string): Found[] {
  const names = readdirSync(folder).filter((name) => /\.(raw|qcow2)$/.test(name));
  return names
    .filter((name) => statSync(join(folder, name)).isFile())
    .sort()
    .map((name) => look(folder, name));
}

/** Names of an image and of all behind it. */
export function chainOf(images: readonly Found[], name: string): string[] {
  const chain: string[] = [];
  for (let at: string | undefined = name; at && !chain.includes(at); ) {
    chain.push(at);
    at = images.find((image) => image.name === at)?.backing;
  }
  return chain;
}

const isExtended = ({ header }: Found) =>
  header !== undefined && (header.incompatible.low & 16) !== 0;

const CACHES = ['writeback', 'writeback', 'unsafe', 'writethrough', 'bogus'] as const;
const SNAPSHOTS = ['one', 'two', '1', '2', '3', 'a b', ''] as const;
const BITMAPS = ['b0', 'b0', 'b1', 'b2', ''] as const;
const PREALLOCATIONS = ['off', 'metadata', 'falloc', 'full'] as const;
const MIB = 2 ** 20;

/** Writes command lines for the images that there are. */
export class StepMaker {
  constructor(
    private readonly next: Random,
    private readonly images: readonly Found[],
  ) {}

  /** The next step. */
  step(): Step {
    const { next } = this;
    const makers = [
      ...[this.io, this.io, this.io, this.io, this.io, this.create, this.create],
      ...[this.snapshot, this.snapshot, this.snapshot, this.bitmap, this.bitmap, this.bitmap],
      ...[this.resize, this.resize, this.amend, this.amend, this.rebase, this.rebase],
      ...[this.commit, this.commit, this.convert, this.convert, this.convert, this.convert],
      this.bench,
      ...[this.check, this.map, this.measure, this.compare, this.info, this.dd],
    ];
    const step = next.pick(makers).call(this);
    return next.oneIn(12) ? this.spoilt(step) : step;
  }

  private one(): Found {
    return this.next.pick(this.images);
  }

  private qcow2(): Found {
    const some = this.images.filter(({ format }) => format === 'qcow2');
    return some.length === 0 || this.next.oneIn(12) ? this.one() : this.next.pick(some);
  }

  /** Mostly nothing. */
  private sometimes(n: number, words: () => readonly string[]): readonly string[] {
    return this.next.oneIn(n) ? words() : [];
  }

  private shuffled(...parts: readonly (readonly string[])[]): string[] {
    const left = parts.filter((part) => part.length > 0);
    for (let i = left.length - 1; i > 0; i--) {
      const j = this.next.below(i + 1);
      [left[i], left[j]] = [left[j]!, left[i]!];
    }
    return left.flat();
  }

  /** `-f` and the name, or a description of the same image. */
  private image({ name, format }: Found, flag = '-f'): { options: string[]; name: string } {
    const { next } = this;
    if (next.oneIn(12)) {
      const spec = `driver=${format},file.filename=${name}`;
      return flag === '-f'
        ? { options: ['--image-opts'], name: spec }
        : {
            options: [],
            name: `json:${JSON.stringify({ driver: format, 'file.filename': name })}`,
          };
    }
    const wrong = next.oneIn(25) ? next.pick(['raw', 'qcow2', 'luks', 'bogus', '']) : format;
    const options = next.oneIn(2) ? [flag, wrong] : [];
    const written = next.oneIn(15) ? next.pick([`./${name}`, `file:${name}`]) : name;
    return { options, name: written };
  }

  private quiet(): readonly string[] {
    return this.sometimes(6, () => [this.next.pick(['-q', '-p', '-q'])]);
  }

  private spoilt(step: Step): Step {
    const { next } = this;
    const args = [...step.args];
    const at = 1 + next.below(args.length - 1);
    const what = next.below(3);
    if (step.program === 'io') return step;
    if (what === 0) args.splice(at, 0, next.pick(junkFor(args[0]!)));
    else if (what === 1 && args[0] !== 'convert' && args[0] !== 'dd') args.splice(at, 1);
    else args[at] = next.pick(['', 'x', 'nowhere', '0', '-1', args[at]!]);
    return { ...step, args };
  }

  // ---- The guest's side ------------------------------------------------------------------------

  private range({ size, cluster }: Found): { at: number; length: number } {
    const { next } = this;
    if (next.oneIn(20)) return { at: size - (size % 512), length: 1024 };
    const unit = next.oneIn(2) && cluster < size ? cluster : 512;
    const units = Math.floor(size / unit);
    if (units === 0) return { at: 0, length: 512 };
    const at = next.below(units);
    const most = Math.min(units - at, next.pick([1, 8, (4 * cluster) / unit, 200]));
    return { at: at * unit, length: Math.min((1 + next.below(most)) * unit, 2 * MIB) };
  }

  private io(): Step {
    const { next } = this;
    const image = next.oneIn(6) ? this.one() : this.qcow2();
    const commands = Array.from({ length: 1 + next.below(5) }, () => {
      let { at, length } = this.range(image);
      const what = next.below(11);
      if (what < 2) return `write -q -s ${PATTERN} ${at} ${length}`;
      if (what === 2) return `write -q -P ${1 + next.below(255)} ${at} ${length}`;
      if (what === 3) return `write -q -z ${at} ${length}`;
      if (what === 4) return `write -q -z -u ${at} ${length}`;
      if (what === 5) return `read -q ${at} ${length}`;
      if (what === 6) return `discard -q ${at} ${length}`;
      if (what === 7) return this.manyBuffers(at, length);
      if (what === 8) return next.pick(['flush', `write -q -f -P 7 ${at} ${length}`]);
      if (what === 9) return this.truncate(image);
      at -= at % image.cluster;
      length = Math.min(image.size - at, Math.ceil(length / image.cluster) * image.cluster);
      return `discard -q ${at} ${length}`;
    });
    const args = [
      '-f',
      image.format,
      ...commands.flatMap((command) => ['-c', command]),
      image.name,
    ];
    return { program: 'io', args, writes: true, loose: true };
  }

  /** A write from, or a read into, several buffers. */
  private manyBuffers(at: number, length: number): string {
    const { next } = this;
    const first = 512 * (1 + next.below(Math.max(1, length / 1024)));
    const parts = first < length ? `${first} ${length - first}` : `${length}`;
    const byte = 1 + next.below(255);
    return next.pick([`writev -q -P ${byte} ${at} ${parts}`, `readv -q ${at} ${parts}`]);
  }

  /** A disk that ends elsewhere: longer ones mostly, of whole sectors. */
  private truncate(image: Found): string {
    const { next } = this;
    const longer = image.size + 512 * next.below(2048);
    return `truncate ${next.oneIn(8) ? longer + 1 : longer}`;
  }

  // ---- Commands that change an image -----------------------------------------------------------

  private img(
    args: readonly string[],
    { writes = true, loose = false }: { writes?: boolean; loose?: boolean } = {},
  ): Step {
    return { program: 'img', args, writes, loose };
  }

  private snapshot(): Step {
    const { next } = this;
    const action = next.pick(['-l', '-c', '-c', '-c', '-a', '-a', '-d', '-d']);
    const words = action === '-l' ? [action] : [action, next.pick(SNAPSHOTS)];
    const image = this.qcow2();
    const { options, name } = this.image(image);
    const described = options[0] === '--image-opts' ? options : [];
    const args = this.shuffled(
      words,
      described,
      this.sometimes(9, () => ['-q']),
    );
    // A disk that becomes longer or shorter has its L1 table elsewhere, and is not cut before.
    const loose = action === '-a' && image.snapshotSizes.some((size) => size !== image.size);
    return this.img(['snapshot', ...args, name], { loose });
  }

  private bitmap(): Step {
    const { next } = this;
    const actions = Array.from({ length: next.pick([1, 1, 1, 2, 3]) }, () =>
      next.pick([
        ['--add'],
        ['--add', '-g', next.pick(['512', '4k', '64k', '1M', '64k', '3', '4G'])],
        ['--add'],
        ['--remove'],
        ['--clear'],
        ['--enable'],
        ['--disable'],
        ['--merge', next.pick(BITMAPS)],
      ]),
    );
    const { options, name } = this.image(this.qcow2());
    const other = this.qcow2();
    const from = this.sometimes(8, () => ['-b', other.name, '-F', other.format]);
    return this.img([
      'bitmap',
      ...this.shuffled(...actions, options, from),
      name,
      next.pick(BITMAPS),
    ]);
  }

  /** A size near the image's: of whole clusters mostly. */
  private newSize({ size, cluster }: Found): { size: number; word: string } {
    const { next } = this;
    const unit = next.oneIn(4) ? next.pick([1, 512, 1024]) : Math.max(512, cluster);
    const units = Math.floor(size / unit);
    const wanted = Math.min(16 * MIB, next.below(2 * units + 4) * unit);
    const change = wanted - size;
    const word = next.oneIn(2) ? `${wanted}` : change < 0 ? `${change}` : `+${change}`;
    return { size: wanted, word };
  }

  private resize(): Step {
    const { next } = this;
    const image = this.one();
    const { size, word } = this.newSize(image);
    const shrinks = size < image.size;
    const { options, name } = this.image(image);
    const shrink = (shrinks ? !next.oneIn(8) : next.oneIn(20)) ? ['--shrink'] : [];
    // QEMU loses a compressed cluster that the disk ends in, where it has subclusters.
    const losesBytes = isExtended(image) && image.size % image.cluster !== 0;
    const preallocation = this.sometimes(4, () =>
      losesBytes ? [] : [`--preallocation=${next.pick(PREALLOCATIONS)}`],
    );
    const args = this.shuffled(
      shrink,
      preallocation,
      options,
      this.sometimes(8, () => ['-q']),
    );
    // What QEMU leaves behind the end, within a cluster, comes back when the disk grows; and its
    // discards make tables. Over a backing file it writes zeros up to the end of a cluster.
    const loose = shrinks || image.backing !== undefined;
    const last = next.oneIn(8) ? ['--', name, word] : [name, word];
    const behind = word.startsWith('-') ? last : last.filter((one) => one !== '--');
    return this.img(['resize', ...args, ...behind], { loose });
  }

  private amend(): Step {
    const { next } = this;
    const image = this.qcow2();
    const options = Array.from({ length: next.pick([1, 1, 2]) }, () =>
      next.pick([
        ...['compat=1.1', 'compat=0.10', 'compat=v3', 'lazy_refcounts=on', 'lazy_refcounts=off'],
        // QEMU goes through all counts of a block, which takes it minutes where blocks are large.
        ...(image.cluster > 65536 ? [] : ['refcount_bits=1', 'refcount_bits=4']),
        ...(image.cluster > 65536 ? [] : ['refcount_bits=16', 'refcount_bits=64']),
        ...(image.cluster > 65536
          ? []
          : ['refcount_bits=2', 'refcount_bits=8', 'refcount_bits=32']),
        ...['compat=v2', 'data_file=', 'size=0'],
        ...['cluster_size=64k', 'extended_l2=on', 'data_file_raw=on', 'data_file_raw=off'],
        ...[`size=${this.newSize(image).size}`, `size=${image.size}`, 'bogus=1', 'backing_file=x'],
        ...['compression_type=zstd', 'preallocation=full', 'encryption=on', 'size=1000'],
      ]),
    );
    const { options: described, name } = this.image(image);
    const cache = this.sometimes(6, () => ['-t', next.pick(CACHES)]);
    const force = this.sometimes(12, () => ['--force']);
    const words = ['-o', options.join(',')];
    const args = this.shuffled(words, described, cache, force, this.quiet());
    const sizes = options.map((option) => Number(/^size=(\d+)$/.exec(option)?.[1] ?? Infinity));
    // Where a disk becomes shorter discards of QEMU's make tables, as with `resize`.
    const loose =
      sizes.some((size) => size < image.size) ||
      options.some((option) => /^(refcount_bits|compat)/.test(option));
    return this.img(['amend', ...args, name], { loose });
  }

  private rebase(): Step {
    const { next, images } = this;
    const image = this.qcow2();
    const others = images.filter(({ name }) => !chainOf(images, name).includes(image.name));
    const { options, name } = this.image(image);
    const words: string[][] = [options, [...this.quiet()]];
    if (next.oneIn(4) || others.length === 0) words.push(['-b', '']);
    else {
      const backing = next.pick(others);
      words.push(['-b', backing.name]);
      if (!next.oneIn(12)) words.push(['-F', backing.format]);
    }
    words.push([...this.sometimes(4, () => ['-u'])]);
    words.push([...this.sometimes(8, () => ['-t', next.pick(CACHES)])]);
    words.push([...this.sometimes(8, () => ['-T', next.pick(CACHES)])]);
    return this.img(['rebase', ...this.shuffled(...words), name], { loose: true });
  }

  private commit(): Step {
    const { next, images } = this;
    const backed = images.filter(({ backing }) => backing !== undefined);
    const image = backed.length === 0 || next.oneIn(10) ? this.one() : next.pick(backed);
    const { options, name } = this.image(image);
    const words: string[][] = [options, [...this.quiet()]];
    words.push([...this.sometimes(3, () => ['-b', next.pick(chainOf(images, image.name))])]);
    words.push([...this.sometimes(3, () => ['-d'])]);
    words.push([...this.sometimes(8, () => ['-t', next.pick(CACHES)])]);
    words.push([...this.sometimes(8, () => ['-r', next.pick(['1G', '0', 'x'])])]);
    return this.img(['commit', ...this.shuffled(...words), name], { loose: true });
  }

  private bench(): Step {
    const { next } = this;
    const image = this.one();
    const { options, name } = this.image(image);
    const unit = next.pick([512, 4096, image.cluster]);
    const { at } = this.range(image);
    const words: string[][] = [options, ['-c', `${1 + next.below(20)}`], ['-s', `${unit}`]];
    words.push(['-d', next.pick(['1', '4', '64', 'x'])], ['-o', `${at}`]);
    words.push([...this.sometimes(2, () => ['-S', `${unit * next.below(4)}`])]);
    const writes = next.oneIn(2);
    if (writes) words.push(['-w', `--pattern=${next.pick(['0', '9', '255', '256'])}`]);
    if (writes && next.oneIn(3)) words.push([`--flush-interval=${next.pick(['2', '5', '64'])}`]);
    words.push([...this.quiet()]);
    return this.img(['bench', ...this.shuffled(...words), name], { writes, loose: true });
  }

  // ---- Commands that make one ------------------------------------------------------------------

  /** A name that no other image needs. */
  private target(format: 'raw' | 'qcow2', needed: readonly string[]): string {
    const { next, images } = this;
    const used = new Set([...needed, ...images.flatMap(({ backing }) => backing ?? [])]);
    const names = ['n0', 'n1', 'n2'].map((name) => `${name}.${format}`);
    const free = names.filter((name) => !used.has(name));
    return free.length === 0 ? `n3.${format}` : next.pick(free);
  }

  /** Options of a new image: mostly ones that go together. */
  private creation(target: string, size?: number): string[] {
    const { next } = this;
    const options: string[] = [];
    const old = next.oneIn(5);
    if (old) options.push('compat=0.10');
    else if (next.oneIn(6)) options.push(`compat=${next.pick(['1.1', 'v3', 'bad'])}`);
    const extended = !old && next.oneIn(5);
    const small = extended ? ['16k', '64k'] : ['512', '1k', '4k', '4k', '64k', '256k', '2M', '3'];
    if (extended || !next.oneIn(4)) options.push(`cluster_size=${next.pick(small)}`);
    if (extended) options.push('extended_l2=on');
    if (!old && next.oneIn(4)) options.push(`refcount_bits=${next.pick([1, 2, 4, 8, 16, 32, 64])}`);
    if (!old && next.oneIn(6)) options.push('lazy_refcounts=on');
    if (!old && next.oneIn(6)) options.push('compression_type=zstd');
    if (next.oneIn(5)) options.push(`preallocation=${next.pick(PREALLOCATIONS)}`);
    if (!old && next.oneIn(10)) {
      options.push(`data_file=${target}.data`);
      if (next.oneIn(2)) options.push('data_file_raw=on');
    }
    if (size !== undefined) options.push(`size=${size}`);
    if (next.oneIn(25)) options.push(next.pick(['bogus=1', 'refcount_bits=3', 'extended_l2=on']));
    return options;
  }

  private create(): Step {
    const { next, images } = this;
    const format = next.oneIn(5) ? 'raw' : 'qcow2';
    const target = this.target(format, []);
    const size = 512 * next.below((4 * MIB) / 512) + next.pick([0, 0, 0, 1, 511]);
    const inside = next.oneIn(8);
    const words: string[][] = [['-f', format]];
    const options =
      format === 'qcow2'
        ? this.creation(target, inside ? size : undefined)
        : [...this.sometimes(3, () => [`preallocation=${next.pick(PREALLOCATIONS)}`])];
    if (options.length > 0) words.push(['-o', options.join(',')]);
    const others = images.filter(({ name }) => !chainOf(images, name).includes(target));
    const backed = next.oneIn(2) && others.length > 0 && format === 'qcow2';
    if (backed) {
      const backing = next.pick(others);
      words.push(['-b', backing.name]);
      if (!next.oneIn(12)) words.push(['-F', backing.format]);
      if (next.oneIn(12)) words.push(['-u']);
    }
    if (next.oneIn(6)) words.push(['-q']);
    const sized = (inside || (backed && next.oneIn(2))) && !next.oneIn(8) ? [] : [`${size}`];
    return this.img(['create', ...this.shuffled(...words), target, ...sized]);
  }

  private convert(): Step {
    const { next, images } = this;
    const source = this.one();
    const sources = [source, ...(next.oneIn(8) ? [this.one()] : [])];
    const used = sources.flatMap(({ name }) => chainOf(images, name));
    const format = next.pick(['raw', 'qcow2', 'qcow2', 'qcow2'] as const);
    const target = this.target(format, used);
    const there = images.find(({ name }) => name === target);
    const words: string[][] = [['-O', format]];
    if (next.oneIn(3)) words.push(['-f', source.format]);
    const onto = there !== undefined && next.oneIn(3);
    const compressed = next.oneIn(4);
    const created = this.creation(target).join(',');
    if (onto) words.push(['-n']);
    else if (format === 'qcow2') words.push(['-o', created]);
    if (compressed && !onto && !created.includes('data_file')) words.push(['-c']);
    if (next.oneIn(6)) words.push(['-l', next.pick(SNAPSHOTS)]);
    if (next.oneIn(6)) words.push(['-S', next.pick(['0', '4k', '64k', '512', '1M', '3'])]);
    if (next.oneIn(6)) words.push(['--bitmaps']);
    if (next.oneIn(40)) words.push(['--skip-broken-bitmaps']);
    if (next.oneIn(8)) words.push(['-m', next.pick(['1', '4', '16', '17', '0', 'x'])]);
    if (next.oneIn(8)) words.push(['-W']);
    if (next.oneIn(8)) words.push(['-U']);
    // It takes zeros for data, which a data file's length tells.
    const isOutside = onto ? there.hasDataFile : created.includes('data_file');
    if (next.oneIn(8) && !isOutside) words.push(['-C']);
    if (next.oneIn(8)) words.push(['--salvage']);
    if (next.oneIn(8)) words.push(['-t', next.pick(CACHES)]);
    if (next.oneIn(8)) words.push(['-T', next.pick(CACHES)]);
    if (!onto && format === 'qcow2' && source.backing !== undefined && next.oneIn(4)) {
      const behind = images.find(({ name }) => name === source.backing);
      words.push(['-B', source.backing, ...(behind ? ['-F', behind.format] : [])]);
    }
    words.push([...this.sometimes(8, () => ['-q'])]);
    const names = sources.map(({ name }) => name);
    return this.img(['convert', ...this.shuffled(...words), ...names, target], { loose: true });
  }

  private dd(): Step {
    const { next, images } = this;
    const source = this.one();
    const format = next.pick(['raw', 'qcow2'] as const);
    const words: string[][] = [[`if=${source.name}`]];
    const target = this.target(format, chainOf(images, source.name));
    words.push([`of=${target}`], ['-O', format]);
    if (next.oneIn(3)) words.push(['-f', source.format]);
    if (next.oneIn(2))
      words.push([`bs=${next.pick(['512', '1000', '4k', '64k', '1M', '3', '0'])}`]);
    if (next.oneIn(2)) words.push([`count=${next.pick(['0', '1', '5', '100', '5000', '1k'])}`]);
    if (next.oneIn(2)) words.push([`skip=${next.pick(['0', '1', '3', '50', '4000', '1k', '1G'])}`]);
    if (next.oneIn(8)) words.push(['-U']);
    return this.img(['dd', ...this.shuffled(...words)], { loose: true });
  }

  // ---- Commands that only look -----------------------------------------------------------------

  private output(): readonly string[] {
    return this.sometimes(2, () => [`--output=${this.next.pick(['json', 'json', 'human'])}`]);
  }

  private share(): readonly string[] {
    return this.sometimes(6, () => [this.next.pick(['-U', '--force-share'])]);
  }

  private check(): Step {
    const { next } = this;
    const { options, name } = this.image(this.qcow2());
    const repair = this.sometimes(4, () => ['-r', next.pick(['leaks', 'all'])]);
    const quiet = this.sometimes(8, () => ['-q']);
    const args = this.shuffled(options, this.output(), repair, quiet);
    return this.img(['check', ...args, name], { writes: repair.length > 0 });
  }

  private map(): Step {
    const { next } = this;
    const image = this.one();
    const { options, name } = this.image(image);
    const start = this.sometimes(3, () => [`--start-offset=${this.range(image).at}`]);
    const most = this.sometimes(3, () => ['--max-length', `${next.below(image.size + 1)}`]);
    const args = this.shuffled(options, this.output(), start, most, this.share());
    return this.img(['map', ...args, name], { writes: false });
  }

  private measure(): Step {
    const { next } = this;
    const { options, name } = this.image(this.one());
    const format = next.pick(['raw', 'qcow2', 'qcow2']);
    const words: string[][] = [['-O', format], options, [...this.output()], [...this.share()]];
    // It takes version 3 by its other name only.
    const created = this.creation('n0.qcow2').map((one) => one.replace('v3', '1.1'));
    if (format === 'qcow2' && next.oneIn(2)) words.push(['-o', created.join(',')]);
    if (next.oneIn(4)) words.push(['-l', next.pick(SNAPSHOTS)]);
    return this.img(['measure', ...this.shuffled(...words), name], { writes: false });
  }

  private compare(): Step {
    const left = this.image(this.one());
    const other = this.one();
    const right =
      left.options[0] === '--image-opts'
        ? { options: [], name: `driver=${other.format},file.filename=${other.name}` }
        : this.image(other, '-F');
    const words = [left.options, right.options, [...this.quiet()], [...this.share()]];
    words.push([...this.sometimes(4, () => ['-s'])]);
    const args = this.shuffled(...words);
    return this.img(['compare', ...args, left.name, right.name], { writes: false });
  }

  private info(): Step {
    const { options, name } = this.image(this.one());
    const chain = this.sometimes(3, () => ['--backing-chain']);
    const args = this.shuffled(options, this.output(), chain, this.share());
    return this.img(['info', ...args, name], { writes: false });
  }
}
