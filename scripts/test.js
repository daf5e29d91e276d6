// Runs the tests: every test/**/*.test.ts in Node, and then in headless Chromium those that can.
//
//   npm test -- [PATTERN …] [--node-only | --browser-only]
//
// A pattern is a part of a file's path. Names say where a file runs: *.node.test.ts and all below
// test/interop, test/cli and test/tidy in Node only, *.web.test.ts in Chromium only, the rest in
// both. Each file has a process or a page of its own. SEED and SLOW reach the tests, in a page as
// globals of these names. CI=true has one seed for all of its runs, so that a failure there speaks
// of the change and not of luck; people's machines are where other seeds are tried, one each run.
// For the same reason a file that fails in CI runs once more when all others are done, by itself
// and with the same seed: what fails again counts, and what does not is told as unsteady.
//
// What a machine lacks (QEMU's tools, Chromium) counts as skipped; with CI=true it is a failure.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { SourceMap } from 'node:module';
import os from 'node:os';
import { join, normalize, sep } from 'node:path';
import { pathToFileURL } from 'node:url';
import { stripVTControlCharacters } from 'node:util';
import { launchOptions, serve } from './chromium.js';
import { ensureSetup, findProgram, isAlive, root, say } from './setup.js';

const NODE_ONLY = /\.node\.test\.ts$|^test\/(interop|cli|tidy)\//;
const WEB_ONLY = /\.web\.test\.ts$/;
const IN_CHROMIUM = ' (chromium)';
const MINUTE = 60_000;
/** Far more than a slow machine needs that has other things to do: what takes longer hangs. */
const FILE_MS_MAX = (process.env.SLOW ? 90 : 30) * MINUTE;
/** How long a process may live on after its last test: past that, something was left open. */
const EXIT_MS_MAX = MINUTE;
/** How long Chromium may take to start, and to open an empty page. */
const BROWSER_MS_MAX = 5 * MINUTE;

const args = process.argv.slice(2);
const patterns = args.filter((arg) => !arg.startsWith('--'));
const unknown = args.find((arg) => arg.startsWith('--') && !/^--(node|browser)-only$/.test(arg));
if (unknown) {
  say(`unknown option ${unknown}; there are --node-only and --browser-only`);
  process.exit(1);
}
const inCi = process.env.CI === 'true';
if (inCi) process.env.SEED ??= '20261121';
const total = { passed: 0, failed: 0, skipped: 0 };
/** Names of the files that failed at first and then not. */
const unsteady = [];
const out = join(root, '.cache', 'test', String(process.pid));

const debian = ['qemu-utils', 'chromium', 'zstd', 'cryptsetup-bin', 'zsh', 'fish', 'groff-base'];
if (!(await ensureSetup({ debian, buildMayFail: true }))) total.failed++;
const esbuild = await import('esbuild');
const { bundleOptions, webWorkerEntry, workerEntry } = await import('./build.js');

const files = readdirSync(join(root, 'test'), { recursive: true })
  .map((path) => `test/${path.split(sep).join('/')}`)
  .filter((path) => path.endsWith('.test.ts'))
  .filter((path) => patterns.length === 0 || patterns.some((part) => path.includes(part)))
  .sort();

removeOldBundles();
process.once('exit', () => rmSync(out, { recursive: true, force: true }));
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

if (!args.includes('--browser-only')) {
  await testInNode(files.filter((file) => !WEB_ONLY.test(file)));
}
if (!args.includes('--node-only')) {
  await testInChromium(files.filter((file) => !NODE_ONLY.test(file)));
}
await esbuild.stop();
if (files.length === 0) {
  say(`no test file matches ${patterns.join(' ')}`);
  total.failed++;
}
for (const file of unsteady) say(`unsteady: ${file} failed, and passed when it ran alone`);
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exitCode = total.failed > 0 ? 1 : 0;

// ---- Node ------------------------------------------------------------------------------------

async function testInNode(files) {
  const folder = join(out, 'node');
  // Packages stay what Node itself resolves: some of them look for files beside themselves.
  const options = { platform: 'node', packages: 'external' };
  const worker = existsSync(join(root, workerEntry['convert-worker'])) ? workerEntry : {};
  const bundles = await bundle(files, folder, '', options, worker);
  await runAll(bundles, '', ({ path }) => runInNode(path));
}

function runInNode(path) {
  const runner = join(root, 'scripts', 'run-suites.js');
  const child = spawn(
    process.execPath,
    ['--enable-source-maps', runner, pathToFileURL(path).href],
    { cwd: root, stdio: ['ignore', 'pipe', 'pipe', 'ipc'] },
  );
  const output = [];
  const note = (text) => output.push(`\n${text}\n`);
  child.stdout.on('data', (chunk) => output.push(chunk));
  child.stderr.on('data', (chunk) => output.push(chunk));

  let result;
  let timer = setTimeout(() => {
    note(`killed after ${FILE_MS_MAX / MINUTE} minutes`);
    child.kill('SIGKILL');
  }, FILE_MS_MAX);
  child.once('message', (message) => {
    result = message;
    clearTimeout(timer);
    timer = setTimeout(() => {
      note('the tests are done, but something they left open keeps the process alive');
      child.kill('SIGKILL');
    }, EXIT_MS_MAX);
  });
  return new Promise((resolve) => {
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      const how = signal ?? `exit code ${code}`;
      if (result === undefined) {
        note(`ended before its tests did: ${how}`);
        result = { passed: 0, failed: 1, skipped: 0 };
      } else if (code !== 0 && result.failed === 0) {
        note(`every test passed, and then: ${how}`);
        result.failed = 1;
      }
      resolve({ ...result, output: Buffer.concat(output.map((part) => Buffer.from(part))) });
    });
  });
}

// ---- Chromium --------------------------------------------------------------------------------

async function testInChromium(files) {
  if (files.length === 0) return;
  const executablePath = findProgram('chromium');
  if (executablePath === undefined) {
    console.log(`chromium is not installed: ${files.length} files are not run in a browser`);
    total[inCi ? 'failed' : 'skipped'] += files.length;
    return;
  }
  const folder = join(out, 'web');
  const options = { platform: 'browser' };
  const bundles = await bundle(files, folder, IN_CHROMIUM, options, webWorkerEntry);
  const browser = await launch(executablePath).catch(async (err) => {
    const output = err.message;
    await report('chromium', '', () => ({ passed: 0, failed: bundles.length, skipped: 0, output }));
  });
  if (browser === undefined) return;
  const server = await serve(folder, {
    '/run-suites.js': join(root, 'scripts', 'run-suites.js'),
  });
  try {
    const { origin } = server;
    await runAll(bundles, IN_CHROMIUM, ({ path }) => runInPage(browser, origin, path));
  } finally {
    await browser.close();
    server.close();
  }
}

async function launch(executablePath) {
  const { chromium } = await import('playwright-core');
  return chromium.launch({ ...launchOptions(executablePath), timeout: BROWSER_MS_MAX });
}

async function runInPage(browser, origin, path) {
  // A context of its own gives each file an empty origin-private file system.
  const context = await browser.newContext();
  const lines = [];
  let thrown = 0;
  let timer;
  try {
    const page = await context.newPage();
    page.on('console', (message) => lines.push(message.text()));
    page.on('pageerror', (err) => {
      thrown++;
      lines.push(String(err.stack ?? err));
    });
    await page.goto(`${origin}/`, { timeout: BROWSER_MS_MAX });
    const tooLong = new Promise((_, reject) => {
      const text = `stopped after ${FILE_MS_MAX / MINUTE} minutes`;
      timer = setTimeout(() => reject(new Error(text)), FILE_MS_MAX);
      page.once('crash', () => reject(new Error('the page crashed')));
    });
    const run = page.evaluate(
      async ([url, env]) => {
        // Also as plain globals, which is where a program without `process` looks first.
        Object.assign(globalThis, env, { __env: env });
        const { runSuites } = await import('/run-suites.js');
        return runSuites(url);
      },
      [`/${path.slice(join(out, 'web').length + 1)}`, testEnv()],
    );
    const result = await Promise.race([run, tooLong]);
    if (result.failed === 0 && thrown > 0) result.failed = 1;
    return { ...result, output: readablePage(lines, origin) };
  } catch (err) {
    lines.push(err.message);
    return { passed: 0, failed: 1, skipped: 0, output: readablePage(lines, origin) };
  } finally {
    clearTimeout(timer);
    await context.close();
  }
}

/** The variables that tests know. A page has no environment, so it is given them. */
function testEnv() {
  const { SEED, SLOW, CI } = process.env;
  return { SEED, SLOW, CI };
}

/** uvu prints each dot by itself: drops those, and says where in the sources an error is. */
function readablePage(lines, origin) {
  const maps = new Map();
  const mapOf = (name) => {
    if (!maps.has(name)) {
      const text = readFileSync(join(out, 'web', `${name}.map`), 'utf8');
      maps.set(name, new SourceMap(JSON.parse(text)));
    }
    return maps.get(name);
  };
  const place = new RegExp(`${origin}/([^\\s:]+\\.js):(\\d+):(\\d+)`, 'g');
  return lines
    .map(stripVTControlCharacters)
    .filter((line) => !/^(• |✘ | {2}\(\d+ \/ \d+\)\n)$/.test(line))
    .join('\n')
    .replace(place, (text, name, line, column) => {
      if (name === 'run-suites.js') return name;
      const from = mapOf(name).findEntry(line - 1, column - 1);
      if (from.originalSource === undefined) return text;
      const source = normalize(from.originalSource).replace(/^(\.\.\/)+/, '');
      return `${source}:${from.originalLine + 1}:${from.originalColumn + 1}`;
    });
}

// ---- both ------------------------------------------------------------------------------------

/**
 * Bundles all files in one go, which shares their common parts. When that fails, finds out whose
 * fault it is, so that one broken file costs one failure and not the whole run.
 */
async function bundle(files, outdir, label, options, extraEntries = {}) {
  mkdirSync(outdir, { recursive: true });
  const all = {
    ...bundleOptions,
    ...options,
    splitting: true,
    sourcemap: true,
    sourcesContent: false,
    logLevel: 'silent',
    outdir,
  };
  // One flat folder, so that what looks for a file beside itself finds it from any chunk.
  const named = (list) => Object.fromEntries(list.map((file) => [bundleName(file), file]));
  const attempt = (list, more) =>
    esbuild.build({ ...all, entryPoints: { ...named(list), ...extraEntries }, ...more });

  let good = files;
  try {
    await attempt(files);
  } catch {
    const alone = await Promise.allSettled(
      files.map((file) => attempt([], { entryPoints: [file], write: false })),
    );
    good = files.filter((_, i) => alone[i].status === 'fulfilled');
    for (const [i, { status, reason }] of alone.entries()) {
      if (status === 'rejected') await report(files[i], label, () => unbundled(reason));
    }
    if (good.length > 0) await attempt(good);
  }
  return good.map((file) => ({ file, path: join(outdir, `${bundleName(file)}.js`) }));
}

function bundleName(file) {
  return file
    .replace(/^test\//, '')
    .replace(/\.ts$/, '')
    .replaceAll('/', '.');
}

async function unbundled(reason) {
  const messages = await esbuild.formatMessages(reason.errors ?? [], { kind: 'error' });
  return { passed: 0, failed: 1, skipped: 0, output: messages.join('') || String(reason) };
}

/** Runs all files; in CI those that failed once more, one at a time. */
async function runAll(bundles, where, run) {
  const again = [];
  await eachAtOnce(bundles, async (bundled) => {
    const { failed } = await report(bundled.file, where, () => run(bundled), inCi);
    if (inCi && failed > 0) again.push(bundled);
  });
  for (const bundled of again) {
    const { failed } = await report(bundled.file, `${where} again, alone`, () => run(bundled));
    if (failed === 0) unsteady.push(`${bundled.file}${where}`);
  }
}

/**
 * Runs one file, prints its line (and its output if it failed), adds to the total; where a failure
 * is not final, nothing of the file.
 */
async function report(file, where, run, again = false) {
  const start = performance.now();
  const result = await run();
  const { passed, failed, skipped, output } = result;
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  const counts = [`${passed} passed`];
  if (failed > 0) counts.push(`${failed} failed`);
  if (skipped > 0) counts.push(`${skipped} skipped`);
  console.log(
    `${failed > 0 ? 'FAIL' : 'ok  '} ${file}${where}  ${counts.join(', ')}  ${seconds} s`,
  );
  if (failed > 0) console.log(String(output).replace(/\n*$/, '\n'));
  if (again && failed > 0) return result;
  total.passed += passed;
  total.failed += failed;
  total.skipped += skipped;
  return result;
}

/** Works through the list, one more at a time than there are processors: some of them wait. */
async function eachAtOnce(list, work) {
  const left = list.values();
  const worker = async () => {
    for (const item of left) await work(item);
  };
  await Promise.all(Array.from({ length: os.availableParallelism() + 1 }, worker));
}

/** Each run has a folder of its own; those whose run was killed are nobody's. */
function removeOldBundles() {
  const folder = join(root, '.cache', 'test');
  mkdirSync(folder, { recursive: true });
  for (const name of readdirSync(folder)) {
    if (!isAlive(Number(name))) rmSync(join(folder, name), { recursive: true, force: true });
  }
}
