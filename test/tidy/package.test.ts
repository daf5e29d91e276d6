/** What the package asks of those who install it, and what the tool costs to start. */
import { readFileSync, statSync } from 'node:fs';
import { build, type Metafile } from 'esbuild';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

/**
 * Packages that come along when the library is installed. All else is bundled or for development.
 * koffi is optional: without it there are no locks and no holes.
 */
const DEPENDENCIES: string[] = ['koffi'];
/** What `qcow2-img --version` has to load and parse. Subcommands come when they are asked for. */
const STARTUP_BYTES_MAX = 100_000;

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

/** Files that are loaded before the first statement of `entry` runs. */
function loadedAtStart(inputs: Metafile['inputs'], entry: string): string[] {
  const loaded = new Set([entry]);
  for (const path of loaded) {
    for (const { path: next, kind, external } of inputs[path]?.imports ?? []) {
      if (kind === 'import-statement' && !external) loaded.add(next);
    }
  }
  return [...loaded];
}

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

test('the tool starts from a small bundle', async () => {
  const entry = 'dist/qcow2-img.js';
  const { metafile } = await build({
    entryPoints: [entry],
    bundle: true,
    format: 'esm',
    platform: 'node',
    packages: 'external',
    write: false,
    metafile: true,
    outdir: 'unwritten',
    logLevel: 'silent',
  });
  const files = loadedAtStart(metafile.inputs, entry);
  const bytes = files.reduce((sum, path) => sum + statSync(path).size, 0);
  assert.ok(bytes < STARTUP_BYTES_MAX, `${bytes} bytes in ${files.join(' ')}`);
});

test('counts what is imported at once, and not what comes later', () => {
  const file = (...imports: Metafile['inputs'][string]['imports']) => ({ bytes: 1, imports });
  const inputs = {
    'a.js': file(
      { path: 'b.js', kind: 'import-statement' },
      { path: 'later.js', kind: 'dynamic-import' },
      { path: 'node:fs', kind: 'import-statement', external: true },
    ),
    'b.js': file({ path: 'c.js', kind: 'import-statement' }),
    'c.js': file({ path: 'a.js', kind: 'import-statement' }),
    'later.js': file(),
  };
  assert.equal(loadedAtStart(inputs, 'a.js'), ['a.js', 'b.js', 'c.js']);
});

test.run();
