// Runs the benchmarks: bench/**/*.bench.ts, one after another, each in a process of its own.
//
//   npm run bench -- [PATTERN …] [--OPTION …]
//
// A pattern is a part of a file's path; from the first option on, all goes to the benchmarks.
// A benchmark's default export is `async function bench(): Promise<void>`, which prints its table.
// With --chromium, bench/**/*.page.ts are run instead, in headless Chromium, with files of the
// origin-private file system in /dev/shm; their default exports are given the other options.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join, sep } from 'node:path';
import { pathToFileURL } from 'node:url';
import { launchOptions, serve } from './chromium.js';
import { ensureSetup, findProgram, root, say } from './setup.js';

const args = process.argv.slice(2);
const inChromium = args.includes('--chromium');
const debian = inChromium ? ['chromium'] : ['qemu-utils', 'e2fsprogs', 'time'];
await ensureSetup({ debian, buildMayFail: true });
const esbuild = await import('esbuild');
const { bundleOptions, webWorkerEntry, workerEntry } = await import('./build.js');

const firstOption = args.findIndex((arg) => arg.startsWith('-'));
const patterns = firstOption < 0 ? args : args.slice(0, firstOption);
const options = firstOption < 0 ? [] : args.slice(firstOption);

const files = readdirSync(join(root, 'bench'), { recursive: true })
  .map((path) => `bench/${path.split(sep).join('/')}`)
  .filter((path) => path.endsWith(inChromium ? '.page.ts' : '.bench.ts'))
  .filter((path) => patterns.length === 0 || patterns.some((part) => path.includes(part)))
  .sort();
const name = (file) =>
  file
    .replace(/^bench\//, '')
    .replace(/\.ts$/, '')
    .replaceAll('/', '.');
const out = join(root, '.cache', 'bench', String(process.pid));
process.once('exit', () => rmSync(out, { recursive: true, force: true }));

const nodeWorker = existsSync(join(root, workerEntry['convert-worker'])) ? workerEntry : {};
await esbuild.build({
  ...bundleOptions,
  ...(inChromium ? { platform: 'browser' } : { platform: 'node', packages: 'external' }),
  splitting: true,
  sourcemap: true,
  outdir: out,
  entryPoints: {
    ...Object.fromEntries(files.map((file) => [name(file), file])),
    ...(inChromium ? webWorkerEntry : nodeWorker),
  },
});
await esbuild.stop();

const failed = inChromium ? await runInChromium() : files.filter((file) => !runInNode(file));
if (files.length === 0) say(`no benchmark matches ${patterns.join(' ')}`);
for (const file of failed) say(`${file} failed`);
process.exitCode = failed.length > 0 || files.length === 0 ? 1 : 0;

/** Processes rather than one: what the compiler learnt from a benchmark would colour the next. */
function runInNode(file) {
  console.log(`\n# ${file}`);
  const url = pathToFileURL(join(out, `${name(file)}.js`)).href;
  const program = `await (await import(${JSON.stringify(url)})).default?.();`;
  const { status } = spawnSync(
    process.execPath,
    ['--expose-gc', '--enable-source-maps', '--input-type=module', '-e', program, '--', ...options],
    { cwd: root, stdio: 'inherit' },
  );
  return status === 0;
}

async function runInChromium() {
  const { chromium } = await import('playwright-core');
  const server = await serve(out);
  const bad = [];
  for (const file of files) {
    console.log(`\n# ${file} (chromium)`);
    // A profile of its own: its files are in memory, and not counted against what a disk has.
    const profile = mkdtempSync('/dev/shm/bench-');
    const browser = await chromium.launchPersistentContext(
      profile,
      launchOptions(findProgram('chromium')),
    );
    try {
      const page = await browser.newPage();
      page.on('console', (message) => console.log(message.text()));
      await page.goto(`${server.origin}/`);
      await page.evaluate(
        async ([url, options]) => (await import(url)).default(options),
        [`/${name(file)}.js`, options.filter((option) => option !== '--chromium')],
      );
    } catch (err) {
      console.log(err.message);
      bad.push(file);
    } finally {
      await browser.close();
      rmSync(profile, { recursive: true, force: true });
    }
  }
  server.close();
  return bad;
}
