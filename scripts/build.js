// Builds dist/: kernels (asc), bundles (esbuild), type declarations (tsc). The tools are in dist/
// itself, the library in dist/lib/.
//
//   node scripts/build.js
//
// Everything is made in a folder of its own and moved into place whole, the stamp with it: a build
// that was interrupted leaves the old dist/ or none, never half of one.
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { recordCode } from './code-cache.js';
import { ensureSetup, isMain, root, runQuietly, say, sourceStamp, withLock } from './setup.js';
import { bundleTool, tools } from './tool-bundles.js';

const bin = (name) => join(root, 'node_modules', '.bin', name);

/**
 * Compiles assembly/ to one WebAssembly module, which the bundles embed. That takes longer than all
 * the rest of a build: what the last one made of the same sources is taken as it is.
 */
export function buildKernels(outFile) {
  mkdirSync(join(outFile, '..'), { recursive: true });
  const cache = join(root, '.cache', 'kernels');
  const kept = join(cache, `${kernelsHash()}.wasm`);
  if (existsSync(kept)) {
    copyFileSync(kept, outFile);
    return true;
  }
  if (runQuietly(bin('asc'), ['--target', 'release', '--outFile', outFile]) !== 0) return false;
  rmSync(cache, { recursive: true, force: true });
  mkdirSync(cache, { recursive: true });
  // Moved into place whole: half a copy would be taken for the kernels.
  const fresh = join(cache, `new-${process.pid}`);
  copyFileSync(outFile, fresh);
  renameSync(fresh, kept);
  return true;
}

/** Changes whenever the kernels do: their sources, and what compiles them. */
function kernelsHash() {
  const hash = createHash('sha256');
  const files = readdirSync(join(root, 'assembly'), { recursive: true })
    .map((name) => join('assembly', name))
    .filter((name) => name.endsWith('.ts'))
    .sort();
  for (const name of ['asconfig.json', 'package-lock.json', ...files]) {
    hash
      .update(`${name}\0`)
      .update(readFileSync(join(root, name)))
      .update('\0');
  }
  return hash.digest('hex');
}

/** What every bundle has in common. */
export const bundleOptions = {
  absWorkingDir: root,
  bundle: true,
  format: 'esm',
  target: 'es2022',
  loader: { '.wasm': 'binary' },
  logLevel: 'warning',
};

/** The program that the worker pool starts; it must lie beside the bundle that starts it. */
export const workerEntry = { 'convert-worker': 'src/convert/worker-node.ts' };

/** The same for browsers, where it also opens files that pages cannot. */
export const webWorkerEntry = { 'web-worker': 'src/convert/worker-web.ts' };

/** Where the library is: modules, while the tools are scripts (`tool-bundles.js` says why). */
const LIBRARY = 'lib';

/** What the demonstration converts. */
const SAMPLE = 'src/cli/sample.qcow2';

/**
 * Builds dist/ anew. The caller holds the set-up lock.
 *
 * @param strict whether a type error fails the build
 * @returns whether dist/ is what the sources say; what went wrong has been printed
 */
export async function build({ strict = false } = {}) {
  const cache = join(root, '.cache');
  mkdirSync(cache, { recursive: true });
  for (const name of readdirSync(cache)) {
    if (/^dist-(new|old)-/.test(name)) rmSync(join(cache, name), { recursive: true, force: true });
  }
  const out = join(cache, `dist-new-${process.pid}`);
  // Taken first: a source that is edited while this runs makes the next run build again.
  const stamp = sourceStamp();

  const built =
    buildKernels(join(out, 'kernels.wasm')) &&
    (await bundle(out)) &&
    (declareTypes(join(out, LIBRARY, 'types')) || !strict);
  if (!built) {
    say('the build failed: see above');
    // The tests of what is still sound only need the kernels.
    if (existsSync(join(out, 'kernels.wasm'))) {
      mkdirSync(join(root, 'dist'), { recursive: true });
      rmSync(join(root, 'dist', '.stamp'), { force: true });
      renameSync(join(out, 'kernels.wasm'), join(root, 'dist', 'kernels.wasm'));
    }
    rmSync(out, { recursive: true, force: true });
    return false;
  }
  recordCode(out);
  writeFileSync(join(out, '.stamp'), stamp);
  swapIn(out, join(cache, `dist-old-${process.pid}`));
  return true;
}

async function bundle(out) {
  const esbuild = await import('esbuild');
  const common = { ...bundleOptions, plugins: [kernelsFrom(out)] };
  const node = { ...common, platform: 'node' };
  const library = { outdir: join(out, LIBRARY) };
  try {
    await Promise.all([
      ...tools.map((entry) => bundleTool(esbuild, entry, { ...node, outdir: out })),
      esbuild.build({
        ...node,
        ...library,
        entryPoints: { node: 'src/node.ts', ...workerEntry },
      }),
      esbuild.build({
        ...common,
        ...library,
        platform: 'browser',
        entryPoints: { index: 'src/index.ts', ...webWorkerEntry },
      }),
    ]);
  } catch (err) {
    // esbuild has printed its messages already; a stack would only bury them.
    if (Array.isArray(err.errors)) return false;
    throw err;
  } finally {
    await esbuild.stop();
  }
  writeFileSync(join(out, 'package.json'), '{ "type": "commonjs" }\n');
  writeFileSync(join(out, LIBRARY, 'package.json'), '{ "type": "module" }\n');
  await writeManual(out);
  for (const tool of ['qcow2-img.js', 'qcow2-io.js']) chmodSync(join(out, tool), 0o755);
  if (existsSync(join(root, SAMPLE))) copyFileSync(join(root, SAMPLE), join(out, basename(SAMPLE)));
  return true;
}

/** The manual page, from the description that `--help` is made of. */
async function writeManual(out) {
  const { build: esbuild } = await import('esbuild');
  const program = join(out, 'manual.mjs');
  const entryPoints = ['src/cli/help/manual.ts'];
  await esbuild({ ...bundleOptions, platform: 'node', entryPoints, outfile: program });
  const { manualPage } = await import(pathToFileURL(program).href);
  const commands = readdirSync(join(root, 'src/cli/commands'));
  const names = commands.map((name) => basename(name, '.ts'));
  writeFileSync(join(out, 'qcow2-img.1'), manualPage(names));
  rmSync(program);
}

function declareTypes(outDir) {
  if (runQuietly(bin('tsc'), ['-p', 'tsconfig.build.json', '--outDir', outDir]) === 0) return true;
  say('there are type errors: see above');
  return false;
}

/** The sources import dist/kernels.wasm; while dist/ is being made that file is elsewhere. */
function kernelsFrom(out) {
  return {
    name: 'kernels',
    setup({ onResolve }) {
      onResolve({ filter: /\/dist\/kernels\.wasm$/ }, () => ({ path: join(out, 'kernels.wasm') }));
    },
  };
}

function swapIn(fresh, old) {
  const dist = join(root, 'dist');
  try {
    renameSync(dist, old);
  } catch (err) {
    if (err.code !== 'ENOENT') throw err;
  }
  renameSync(fresh, dist);
  rmSync(old, { recursive: true, force: true });
}

if (isMain(import.meta.url)) {
  await ensureSetup({ build: false });
  if (!(await withLock(() => build({ strict: true })))) process.exitCode = 1;
}
