// Runs the benchmarks: bench/**/*.bench.ts, one after another, each in a process of its own.
//
//   npm run bench -- [PATTERN …] [--OPTION …]
//
// A pattern is a part of a file's path; from the first option on, all goes to the benchmarks.
// A benchmark's default export is `async function bench(): Promise<void>`, which prints its table.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join, sep } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ensureSetup, root, say } from './setup.js';

await ensureSetup({ debian: ['qemu-utils', 'e2fsprogs', 'time'], buildMayFail: true });
const esbuild = await import('esbuild');
const { bundleOptions, workerEntry } = await import('./build.js');

const args = process.argv.slice(2);
const firstOption = args.findIndex((arg) => arg.startsWith('-'));
const patterns = firstOption < 0 ? args : args.slice(0, firstOption);
const options = firstOption < 0 ? [] : args.slice(firstOption);

const files = readdirSync(join(root, 'bench'), { recursive: true })
  .map((path) => `bench/${path.split(sep).join('/')}`)
  .filter((path) => path.endsWith('.bench.ts'))
  .filter((path) => patterns.length === 0 || patterns.some((part) => path.includes(part)))
  .sort();
const name = (file) =>
  file
    .replace(/^bench\//, '')
    .replace(/\.ts$/, '')
    .replaceAll('/', '.');
const out = join(root, '.cache', 'bench', String(process.pid));
process.once('exit', () => rmSync(out, { recursive: true, force: true }));

await esbuild.build({
  ...bundleOptions,
  platform: 'node',
  packages: 'external',
  splitting: true,
  sourcemap: true,
  outdir: out,
  entryPoints: {
    ...Object.fromEntries(files.map((file) => [name(file), file])),
    ...(existsSync(join(root, workerEntry['convert-worker'])) ? workerEntry : {}),
  },
});
await esbuild.stop();

// Processes rather than one: what the compiler learnt from a benchmark would colour the next.
const failed = files.filter((file) => {
  console.log(`\n# ${file}`);
  const url = pathToFileURL(join(out, `${name(file)}.js`)).href;
  const program = `await (await import(${JSON.stringify(url)})).default?.();`;
  const { status } = spawnSync(
    process.execPath,
    ['--expose-gc', '--enable-source-maps', '--input-type=module', '-e', program, '--', ...options],
    { cwd: root, stdio: 'inherit' },
  );
  return status !== 0;
});

if (files.length === 0) say(`no benchmark matches ${patterns.join(' ')}`);
for (const file of failed) say(`${file} failed`);
process.exitCode = failed.length > 0 || files.length === 0 ? 1 : 0;
