/** What the package asks of those who install it, and what the tool costs to start. */
import { execFileSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

/**
 * Packages that come along when the library is installed. All else is bundled or for development.
 * koffi is optional: without it there are no locks and no holes.
 */
const DEPENDENCIES: string[] = ['koffi'];

/** What a run of the tool may load of dist/: files, and bytes to parse. */
const BUDGETS = [
  { args: ['--version'], files: 3, bytes: 94_000 },
  { args: ['info', 'empty.qcow2'], files: 3, bytes: 94_000 },
  { args: ['convert', '-O', 'raw', 'empty.qcow2', 'empty.raw'], files: 5, bytes: 390_000 },
] as const;

/** Parts of Node that take milliseconds to load, which none of these runs needs. */
const HEAVY = ['crypto', 'net', 'stream', 'tty', 'worker_threads', 'fs/promises'];

interface Package {
  readonly dependencies?: Record<string, string>;
  readonly peerDependencies?: Record<string, string>;
  readonly optionalDependencies?: Record<string, string>;
  readonly devDependencies?: Record<string, string>;
}

function wrongDependencies(json: Package): string[] {
  const { dependencies, peerDependencies, optionalDependencies, devDependencies } = json;
  const needed = Object.keys({ ...dependencies, ...peerDependencies, ...optionalDependencies });
  const loose = Object.entries({
    ...dependencies,
    ...optionalDependencies,
    ...devDependencies,
  }).filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version));
  return [
    ...needed.filter((name) => !DEPENDENCIES.includes(name)).map((name) => `${name} is new`),
    ...loose.map(([name, version]) => `${name} is not pinned: ${version}`),
  ];
}

/** What a run of the tool loads: files of ours, and parts of Node. */
interface Loaded {
  readonly files: readonly string[];
  /** Scripts of ours that V8 had to parse. */
  readonly parsed: readonly string[];
  readonly builtins: readonly string[];
}

/** Says at exit what was loaded: a script that runs before the tool. */
const WITNESS = `
const before = new Set(process.moduleLoadList);
const vm = require('node:vm');
const parsed = [];
vm.Script = class extends vm.Script {
  constructor(text, options) {
    super(text, options);
    if (this.cachedDataRejected !== false) parsed.push(options.filename);
  }
};
process.on('exit', () => {
  const files = Object.keys(require.cache).filter((path) => path !== __filename);
  const builtins = process.moduleLoadList.filter((name) => !before.has(name));
  require('node:fs').writeFileSync('loaded.json', JSON.stringify({ files, parsed, builtins }));
});
`;

function runWatched(folder: string, program: string, args: readonly string[]): Loaded {
  const witness = join(folder, 'witness.cjs');
  writeFileSync(witness, WITNESS);
  const command = ['--require', witness, program, ...args];
  execFileSync(process.execPath, command, { cwd: folder, stdio: 'pipe' });
  return JSON.parse(readFileSync(join(folder, 'loaded.json'), 'utf8'));
}

/** Heavy parts of Node among those that a run loaded. */
const heavyOf = ({ builtins }: Loaded) =>
  HEAVY.filter((name) => builtins.includes(`NativeModule ${name}`));

const test = suite('package');

test('asks for no package beyond the list', () => {
  assert.equal(wrongDependencies(JSON.parse(readFileSync('package.json', 'utf8'))), []);
});

test('finds a new dependency, and one that is not pinned', () => {
  assert.is(wrongDependencies({ dependencies: { 'left-pad': '1.0.0' } }).length, 1);
  assert.is(wrongDependencies({ peerDependencies: { react: '*' } }).length, 1);
  assert.is(wrongDependencies({ devDependencies: { uvu: '^0.5.6' } }).length, 1);
  assert.is(wrongDependencies({ optionalDependencies: { koffi: '^3.3.4' } }).length, 1);
});

test('the scripts are ASCII, as their loader reads them', () => {
  const scripts = readdirSync('dist').filter((name) => name.endsWith('.js'));
  const others = scripts.filter((name) =>
    readFileSync(join('dist', name)).some((byte) => byte > 127),
  );
  assert.ok(scripts.length > 3);
  assert.equal(others, []);
});

for (const { args, files, bytes } of BUDGETS) {
  test(`little is loaded for ${args.join(' ')}`, () => {
    const folder = mkdtempSync(join(tmpdir(), 'budget-'));
    try {
      const image = join(folder, 'empty.qcow2');
      const tool = resolve('dist/qcow2-img.js');
      execFileSync(process.execPath, [tool, 'create', '-q', '-f', 'qcow2', image, '1G']);
      const loaded = runWatched(folder, tool, args);
      const ours = loaded.files.filter((path) => path.endsWith('.js'));
      const sum = ours.reduce((total, path) => total + statSync(path).size, 0);
      assert.ok(ours.length > 0 && ours.length <= files, ours.join(' '));
      assert.ok(sum < bytes, `${sum} bytes in ${ours.join(' ')}`);
      assert.equal(heavyOf(loaded), []);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}

const CACHES = `dist/code-cache/${process.version}-${process.arch}`;

test('what V8 made of the scripts at build time is used', () => {
  const folder = mkdtempSync(join(tmpdir(), 'budget-'));
  try {
    const [tool, io] = [resolve('dist/qcow2-img.js'), resolve('dist/qcow2-io.js')];
    const made = runWatched(folder, tool, ['create', '-q', '-f', 'qcow2', 'a.qcow2', '64M']);
    const filled = runWatched(folder, io, ['-c', 'write 0 48M', 'a.qcow2']);
    const copied = runWatched(folder, tool, ['convert', '-O', 'qcow2', 'a.qcow2', 'b.qcow2']);
    for (const { files, parsed } of [made, filled, copied]) {
      assert.ok(files.some((path) => path.endsWith('-main.js')));
      // Another version of Node than the one that built it has none, and works.
      if (existsSync(CACHES)) assert.equal(parsed, []);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a cache that is not of this V8, or cut short, is no harm', () => {
  const folder = mkdtempSync(join(tmpdir(), 'budget-'));
  try {
    cpSync('dist', join(folder, 'dist'), { recursive: true });
    const caches = join(folder, CACHES);
    mkdirSync(caches, { recursive: true });
    for (const name of readdirSync('dist').filter((name) => name.endsWith('.js'))) {
      const path = join(caches, name);
      const bytes = existsSync(path) ? readFileSync(path) : Buffer.alloc(100);
      if (bytes.length % 3 > 0) bytes.fill(0, 4, 12);
      writeFileSync(path, bytes.length % 3 === 0 ? bytes.subarray(0, 50) : bytes);
    }
    const tool = join(folder, 'dist', 'qcow2-img.js');
    const { files, parsed } = runWatched(folder, tool, ['create', '-q', 'a.raw', '1M']);
    assert.ok(parsed.length > 2);
    assert.is(parsed.length, files.filter((path) => path.includes('dist')).length - 1);
    assert.is(statSync(join(folder, 'a.raw')).size, 2 ** 20);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('sees files that are loaded late, and heavy parts of Node', () => {
  const folder = mkdtempSync(join(tmpdir(), 'budget-'));
  try {
    const program = join(folder, 'program.cjs');
    writeFileSync(join(folder, 'late.js'), 'require("node:crypto");');
    writeFileSync(program, 'setTimeout(() => require("./late.js"), 1);');
    const loaded = runWatched(folder, program, []);
    assert.is(loaded.files.length, 2);
    assert.equal(heavyOf(loaded).includes('crypto'), true);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test.run();
