/**
 * Imports look down only. esbuild's metafile lists what each file really imports, types erased.
 */
import { build, type Metafile } from 'esbuild';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { sourceFiles } from './tree.ts';

/** From the ground up; folders on one line do not import each other. */
const LAYERS = [
  ['base'],
  ['format', 'storage'],
  ['kernels'],
  ['codec', 'crypto'],
  ['image'],
  ['convert', 'nbd'],
  ['index.ts', 'node.ts'],
  ['cli', 'web'],
];

/** The public entry points gather names from everywhere and hold nothing themselves. */
const ENTRY_POINTS = ['src/index.ts', 'src/node.ts'];

const MAY_IMPORT_NODE =
  /^src\/(node\.ts|cli\/.*|storage\/(node|native)-[a-z]+\.ts|convert\/(pool|worker)-node\.ts)$/;

/** Each package is imported by one file. */
const PACKAGES: Record<string, string> = {
  koffi: 'src/storage/native-koffi.ts',
};

const KERNELS = 'dist/kernels.wasm';

type Inputs = Metafile['inputs'];

function wrongImports(inputs: Inputs): string[] {
  return Object.entries(inputs).flatMap(([from, { imports }]) =>
    imports.flatMap(({ path, external }) => {
      const wrong = external ? wrongExternal(from, path) : wrongInternal(from, path);
      return wrong === undefined ? [] : [`${from} -> ${path}: ${wrong}`];
    }),
  );
}

function wrongExternal(from: string, path: string): string | undefined {
  if (path.endsWith('/kernels.wasm')) {
    return from === 'src/kernels/wasm.ts' ? undefined : 'kernels are reached through src/kernels';
  }
  if (path.startsWith('node:')) {
    return MAY_IMPORT_NODE.test(from) ? undefined : 'node: is not for this file';
  }
  if (PACKAGES[path] === undefined) return 'not a package that src/ may use';
  return PACKAGES[path] === from ? undefined : `only ${PACKAGES[path]} imports this package`;
}

function wrongInternal(from: string, path: string): string | undefined {
  if (ENTRY_POINTS.includes(from) || folder(from) === folder(path)) return undefined;
  const [low, high] = [layer(path), layer(from)];
  if (low < 0 || high < 0) return 'a folder that is in no layer';
  if (low > high) return 'an upward import';
  return low === high ? 'an import between two folders of one layer' : undefined;
}

function folder(path: string): string {
  return path.split('/')[1] ?? path;
}

function layer(path: string): number {
  return LAYERS.findIndex((names) => path.startsWith('src/') && names.includes(folder(path)));
}

async function realInputs(): Promise<Inputs> {
  const { metafile } = await build({
    entryPoints: sourceFiles('src').filter((path) => !path.endsWith('.d.ts')),
    bundle: true,
    format: 'esm',
    platform: 'node',
    packages: 'external',
    external: [`*/${KERNELS}`],
    write: false,
    metafile: true,
    outdir: 'unwritten',
    logLevel: 'silent',
  });
  return metafile.inputs;
}

const test = suite('layers');

test('imports look down only', async () => {
  const inputs = await realInputs();
  assert.ok(Object.keys(inputs).length > 0);
  assert.equal(wrongImports(inputs), []);
});

const plant = (from: string, path: string, external = false): string[] =>
  wrongImports({ [from]: { bytes: 0, imports: [{ path, kind: 'import-statement', external }] } });

test('lets a file import its own folder and those below', () => {
  assert.equal(plant('src/image/qcow2/read.ts', 'src/image/qcow2/mapping.ts'), []);
  assert.equal(plant('src/image/qcow2/read.ts', 'src/base/errors.ts'), []);
  assert.equal(plant('src/web/page.ts', 'src/index.ts'), []);
  assert.equal(plant('src/index.ts', 'src/convert/options.ts'), []);
  assert.equal(plant('src/storage/node-file.ts', 'node:fs', true), []);
  assert.equal(plant('src/storage/native-lock.ts', 'node:fs', true), []);
  assert.equal(plant('src/storage/native-koffi.ts', 'koffi', true), []);
  assert.equal(plant('src/kernels/wasm.ts', `../../${KERNELS}`, true), []);
});

for (const [from, path] of [
  ['src/base/bits.ts', 'src/format/header.ts'],
  ['src/format/header.ts', 'src/storage/storage.ts'],
  ['src/codec/deflate.ts', 'src/crypto/xts.ts'],
  ['src/image/disk.ts', 'src/index.ts'],
  ['src/image/disk.ts', 'src/elsewhere/thing.ts'],
  ['src/image/disk.ts', 'test/random.ts'],
] as const) {
  test(`refuses ${from} -> ${path}`, () => assert.is(plant(from, path).length, 1));
}

for (const [from, path] of [
  ['src/image/disk.ts', 'node:fs'],
  ['src/convert/pool.ts', 'node:os'],
  ['src/storage/node-file.ts', 'fs'],
  ['src/image/disk.ts', 'pako'],
  ['src/storage/node-file.ts', 'koffi'],
  ['src/codec/codec.ts', 'left-pad'],
  ['src/image/disk.ts', '../../dist/kernels.wasm'],
] as const) {
  test(`refuses ${from} -> ${path}`, () => assert.is(plant(from, path, true).length, 1));
}

test.run();
