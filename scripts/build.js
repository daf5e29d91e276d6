// Builds dist/: kernels (asc), bundles (esbuild), type declarations (tsc).
//
//   node scripts/build.js [--fast]     --fast leaves the type declarations out
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const bin = (name) => join(root, 'node_modules', '.bin', name);

/** Compiles assembly/ to dist/kernels.wasm, which the bundles embed. */
export function buildKernels() {
  mkdirSync(join(root, 'dist'), { recursive: true });
  execFileSync(bin('asc'), ['--target', 'release'], { cwd: root, stdio: 'inherit' });
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

export async function build({ types = true } = {}) {
  const { build: esbuild } = await import('esbuild');
  rmSync(join(root, 'dist'), { recursive: true, force: true });
  buildKernels();
  const node = { ...bundleOptions, platform: 'node', minify: true, keepNames: false };
  await Promise.all([
    esbuild({
      ...node,
      entryPoints: {
        'qcow2-img': 'src/cli/qcow2-img.ts',
        'convert-worker': 'src/convert/worker-node.ts',
      },
      outdir: 'dist',
      splitting: true,
      chunkNames: 'chunks/[name]-[hash]',
      banner: {},
    }),
    esbuild({ ...node, minify: false, entryPoints: ['src/node.ts'], outfile: 'dist/node.js' }),
    esbuild({
      ...bundleOptions,
      platform: 'browser',
      entryPoints: ['src/index.ts'],
      outfile: 'dist/index.js',
    }),
  ]);
  chmodSync(join(root, 'dist', 'qcow2-img.js'), 0o755);
  if (types) {
    execFileSync(bin('tsc'), ['-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await build({ types: !process.argv.includes('--fast') });
}
