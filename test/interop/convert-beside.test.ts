/**
 * Random conversions by both tools, side by side: random sources, random options, also ones that
 * do not go together. The same words, exit codes and disks; images without faults; and where the
 * layout is that of qemu-img the same map. Replay with SEED=…, and try many more with SLOW=1.
 */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { parseHeader } from '../../src/format/header.ts';
import { qemuSuite, requireQemu } from '../oracle.ts';
import { type Random, rng, SEED } from '../random.ts';
import {
  difference,
  type Ended,
  eachAtOnce,
  inScratch,
  qemuImg,
  qemuIo,
  run,
  tool,
} from '../tool.ts';
import {
  describe,
  fillCommands,
  type ImageSetting,
  makeChain,
  makeImage,
  PLAIN,
  randomSetting,
  writePattern,
} from './random-image.ts';

const COUNT = process.env.SLOW ? 400 : 10;

/** A conversion that both tools are asked for, in folders beside the sources'. */
interface Request {
  readonly args: readonly string[];
  readonly target: string;
  readonly about: string;
  readonly format: 'raw' | 'qcow2';
  /** Clusters lie where qemu-img puts them. */
  readonly sameLayout: boolean;
}

interface Sources {
  readonly names: readonly string[];
  readonly size: number;
  readonly snapshots: boolean;
  readonly backing: readonly string[];
  readonly about: string;
}

async function makeSources(next: Random, folder: string): Promise<Sources> {
  const depth = next.pick([0, 0, 0, 1, 2]);
  const chain = await makeChain(next, folder, depth);
  const hasData = chain.about.includes('dataFile=file') || chain.about.includes('dataFile=raw');
  let snapshots = false;
  // Two snapshots share a cluster with the disk, and compressed bytes share one many times.
  if (!hasData && next.oneIn(3) && !/refcountBits=[1248] /.test(chain.about)) {
    for (const name of ['one', '2']) {
      await qemuImg(['snapshot', '-c', name, chain.image], { cwd: folder });
      const commands = fillCommands(next, { ...PLAIN, size: chain.size }, 4);
      await qemuIo(chain.image, commands, { cwd: folder });
    }
    snapshots = true;
  }
  const names = [chain.image];
  let { about, size } = chain;
  while (next.oneIn(6)) {
    const name = `more${names.length}.qcow2`;
    const setting = randomSetting(next, { dataFile: 'none' });
    await makeImage(next, folder, name, setting);
    names.push(name);
    size += setting.size;
    about += `\nand ${describe(setting)}`;
  }
  const backing = ['base.raw', 'image1.qcow2', 'image0.qcow2', 'image2.qcow2'].filter((name) =>
    existsSync(join(folder, name)),
  );
  return { names, size, snapshots, backing, about };
}

/** Options of a new qcow2 image, nearly always ones that go together. */
function creation(next: Random, setting: ImageSetting): string[] {
  const options: string[] = [];
  const sometimes = (option: string) => {
    if (!next.oneIn(3)) options.push(option);
  };
  const { clusterBits, refcountBits, dataFile, preallocation } = setting;
  if (setting.version === 2) options.push(`compat=${next.pick(['0.10', 'v2'])}`);
  else if (next.oneIn(3)) options.push(`compat=${next.pick(['1.1', 'v3'])}`);
  options.push(`cluster_size=${2 ** clusterBits}`);
  if (refcountBits !== 16) options.push(`refcount_bits=${refcountBits}`);
  if (setting.extended) options.push('extended_l2=on');
  if (setting.lazy) sometimes('lazy_refcounts=on');
  if (setting.compression === 'zstd') sometimes('compression_type=zstd');
  if (preallocation !== 'off') options.push(`preallocation=${preallocation}`);
  if (dataFile !== 'none') options.push('data_file=target.data');
  if (dataFile === 'raw') options.push('data_file_raw=on');
  if (next.oneIn(40)) options.push('size=1M');
  return options;
}

async function randomRequest(next: Random, folder: string, sources: Sources): Promise<Request> {
  const args: string[] = [];
  const format = next.pick(['raw', 'qcow2', 'qcow2', 'qcow2'] as const);
  const target = format === 'raw' ? 'target.raw' : 'target.qcow2';
  const create = !next.oneIn(5);
  const compress = next.oneIn(format === 'qcow2' ? 3 : 30);
  const preallocation = next.pick([
    ...['off', 'off', 'off', 'off', 'metadata', 'falloc', 'full'],
  ] as ImageSetting['preallocation'][]);
  const setting = { ...randomSetting(next), preallocation };
  let sameLayout = !compress && format === 'qcow2';
  let about = `target ${describe(setting)}`;
  if (create && format === 'qcow2') {
    args.push('-o', creation(next, setting).join(','));
    if (next.oneIn(4)) {
      const backing = next.pick(sources.backing);
      args.push('-B', `../${backing}`);
      if (!next.oneIn(8)) args.push('-F', backing.endsWith('raw') ? 'raw' : 'qcow2');
      sameLayout = false;
    }
  } else if (create && next.oneIn(4)) args.push('-o', `preallocation=${preallocation}`);
  else if (!create) {
    args.push('-n');
    about += ' existing';
    const isZero = next.oneIn(3);
    if (isZero) args.push('--target-is-zero');
    await existingTarget(next, folder, { format, setting, size: sources.size, isZero });
    sameLayout = false;
  }
  // qemu-img compresses nothing over clusters that are there, nor parts of one.
  if (compress && create) args.push('-c');
  if (next.oneIn(3)) {
    const sparse = next.pick(['0', '512', '1536', '4k', '64k', '65k', '1M', '16M']);
    args.push('-S', sparse);
    // Which zeros are too few is up to the pieces that a tool looks at, once they are smaller.
    const pieces = preallocation === 'off' ? /^(65k|1M|16M)$/ : /^(64k|65k|1M|16M)$/;
    if (pieces.test(sparse)) sameLayout = false;
  }
  if (sources.snapshots && next.oneIn(2)) {
    args.push('-l', next.pick(['one', '2', '1', 'snapshot.name=2', 'snapshot.id=2', 'nowhere']));
  }
  if (next.oneIn(8)) args.push('-C');
  if (next.oneIn(4)) args.push('-m', String(1 + next.below(6)));
  if (next.oneIn(8)) {
    args.push('-W');
    // QEMU writes what comes first.
    sameLayout = false;
  }
  if (next.oneIn(8)) args.push('-U');
  if (next.oneIn(8)) args.push('-q');
  if (next.oneIn(8)) args.push('--salvage');
  if (next.oneIn(8)) args.push('-r', next.pick(['100M', '1G', '0', 'x']));
  if (next.oneIn(8)) args.push('-t', next.pick(['writeback', 'unsafe', 'writethrough', 'x']));
  if (next.oneIn(8)) args.push('-T', next.pick(['writeback', 'writethrough', 'bogus']));
  const names = sources.names.map((name) => `../${name}`);
  return {
    args: ['convert', ...args, '-O', format, ...names, target],
    target,
    about,
    format,
    sameLayout,
  };
}

/** A target that is there, the same in both folders: empty, or full of something else. */
async function existingTarget(
  next: Random,
  folder: string,
  wanted: {
    readonly format: 'raw' | 'qcow2';
    readonly setting: ImageSetting;
    readonly size: number;
    readonly isZero: boolean;
  },
): Promise<void> {
  const { format, isZero } = wanted;
  const size = wanted.size + next.pick([0, 0, 0, 512, 70 * 512, 2 ** 20]);
  const rounded = Math.ceil(size / 512) * 512;
  const cwd = join(folder, 'ours');
  const name = `target.${format}`;
  if (format === 'raw') {
    await qemuImg(['create', '-q', '-f', 'raw', name, `${rounded}`], { cwd });
    if (!isZero) await qemuIo(name, [`write -P 0x77 0 ${rounded}`], { cwd, format });
  } else {
    const setting: ImageSetting = {
      ...wanted.setting,
      dataFile: 'none',
      size: rounded,
      preallocation: next.pick(['off', 'off', 'metadata']),
    };
    const options = creation(next, setting).filter((option) => !option.startsWith('size'));
    await qemuImg(['create', '-q', '-f', 'qcow2', '-o', options.join(','), name, `${rounded}`], {
      cwd,
    });
    if (!isZero) {
      const whole = [`write -P 0x77 0 ${rounded}`];
      const some = fillCommands(next, { ...setting, compression: 'none' }, 10);
      await qemuIo(name, next.oneIn(2) ? whole : some, { cwd });
    }
  }
  copyFileSync(join(cwd, name), join(folder, 'theirs', name));
}

/** @param isOrdered whether the first byte that fails is the same in each run */
function said(
  { code, stdout, stderr, signal }: Ended,
  program: string,
  isOrdered: boolean,
): string {
  const err = stderr
    .replaceAll(`${program}: `, 'PROGRAM: ')
    .replaceAll(`'${program} `, "'PROGRAM ")
    .replaceAll(/ at byte \d+/g, isOrdered ? '$&' : ' at some byte');
  return `exit ${code ?? signal}\n${stdout}${err}`;
}

/** Bytes of a file whose clusters one refcount block counts. */
function oneBlockBytes(path: string): number {
  const { clusterBits, refcountOrder } = parseHeader(readFileSync(path));
  return ((8 * 2 ** clusterBits) / 2 ** refcountOrder) * 2 ** clusterBits;
}

async function mapOf(cwd: string, name: string, places: boolean): Promise<string> {
  const map = await qemuImg(['map', '--output=json', '-f', 'qcow2', name], { cwd });
  const lines: string[] = [];
  for (const { start, depth, present, zero, data, offset } of JSON.parse(map.toString())) {
    const place = offset === undefined || !places ? '' : `at +${offset - start}`;
    const what = `depth ${depth} ${present} ${data ? 'data' : zero} ${place}`;
    if (!lines.at(-1)?.endsWith(`: ${what}`)) lines.push(`${start}: ${what}`);
  }
  return lines.join('\n');
}

async function once(next: Random, folder: string): Promise<void> {
  writePattern(next, folder);
  const sources = await makeSources(next, folder);
  const [here, there] = [join(folder, 'ours'), join(folder, 'theirs')];
  for (const made of [here, there]) {
    mkdirSync(made);
    // qemu-img looks for data files, and qemu-io for patterns, where it is started.
    for (const name of readdirSync(folder)) {
      if (/data$|^pattern/.test(name)) symlinkSync(`../${name}`, join(made, name));
    }
  }
  const { args, target, about, format, sameLayout } = await randomRequest(next, folder, sources);
  const what = `SEED=${SEED}\n${args.join(' ')}\n${about}\nof ${sources.about}\n`;
  const ours = await tool(args, { cwd: here });
  const theirs = await run(requireQemu().img, args, { cwd: there });
  const isOrdered = !args.includes('-W');
  if (args.includes('-c') && args.some((arg) => arg.includes('data_file='))) {
    // Where there is nothing to write, qemu-img fails without a word.
    assert.is(ours.code, theirs.code, what);
    if (ours.code !== 0) return;
  }
  assert.is(said(ours, 'qcow2-img', isOrdered), said(theirs, 'qemu-img', isOrdered), what);
  if (theirs.code !== 0) return;
  const [left, right] = await Promise.all(
    [here, there].map(async (cwd) => {
      await qemuImg(['convert', '-f', format, '-O', 'raw', target, 'plain'], { cwd });
      return readFileSync(join(cwd, 'plain'));
    }),
  );
  if (args.includes('-B')) {
    // An overlay shows the source here, and what the source's topmost image has with qemu-img.
    const rest = args.slice(args.indexOf('-O') + 2, -1);
    const as = args.includes('-l') ? args.slice(args.indexOf('-l'), args.indexOf('-l') + 2) : [];
    await qemuImg(['convert', ...as, '-O', 'raw', ...rest, 'plain'], { cwd: here });
    assert.is(difference(left!, readFileSync(join(here, 'plain'))), '', what);
  } else assert.is(difference(left!, right!), '', what);
  const sizes = [here, there].map((cwd) => statSync(join(cwd, target)).size);
  if (format === 'raw') {
    assert.is(sizes[0], sizes[1], what);
    return;
  }
  const checked = await run(requireQemu().img, ['check', target], { cwd: here });
  assert.is(checked.code, 0, `${what}${checked.stdout}${checked.stderr}`);
  if (!sameLayout || args.includes('-C')) return;
  // Past the first refcount block qemu-img puts the next one behind a whole request's clusters.
  const places = sizes[1]! <= oneBlockBytes(join(there, target));
  assert.is(await mapOf(here, target, places), await mapOf(there, target, places), what);
  assert.is(sizes[0], sizes[1], what);
}

const test = qemuSuite('conversions by both tools');

test('random ones', () =>
  eachAtOnce(Array(COUNT).keys(), (index) =>
    inScratch(async (folder) => {
      try {
        await once(rng(SEED ^ Math.imul(index + 1, 0x9e3779b1)), folder);
      } catch (cause) {
        console.error(`SEED=${SEED}, conversion ${index}`);
        throw cause;
      }
    }),
  ));

test.run();
