// Brings a bare clone to where it can run: npm packages, Debian packages, dist/.
//
//   node scripts/setup.js [--no-build]
//
// Only Node is there when this starts, so it imports nothing but Node's own modules, and keeps to
// what old versions can parse: they are told to upgrade rather than shown a syntax error.
// All it says goes to stderr; stdout belongs to the program that is started afterwards.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmdirSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const NODE_MAJOR_MIN = 20;

/** The project's folder. */
export const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** Whether this module is the program that was started, and not an import of one. */
export function isMain(url) {
  return !!process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(url);
}

/** One line about what is being done. */
export function say(text) {
  process.stderr.write(`qcow2: ${text}\n`);
}

/** Ends the program with a message for a person and no stack. */
export function die(text) {
  say(text);
  process.exit(1);
}

/**
 * Makes everything asked for ready, or ends the program. When it already is, this costs a few
 * milliseconds and takes no lock; otherwise runs of it wait for each other.
 *
 * @param debian Debian packages that should be there; missing ones are installed where we may
 * @param build  whether dist/ must match the sources
 * @param buildMayFail whether to go on without a dist/ that does
 * @returns whether the build, if there was to be one, is good
 */
export async function ensureSetup({ debian = [], build = true, buildMayFail = false } = {}) {
  requireNode();
  let built = true;
  const todo = () => !packagesMatch() || (build && !buildMatches());
  if (todo()) {
    await withLock(async () => {
      if (!packagesMatch()) installPackages();
      if (build && !buildMatches()) {
        say('building…');
        const { build: run } = await import('./build.js');
        built = await run();
      }
    });
  }
  if (!built && !buildMayFail) process.exit(1);
  const missing = debian.filter((name) => !hasDebianPackage(name));
  if (missing.length > 0) await withLock(() => installDebian(missing));
  return built;
}

function requireNode() {
  if (Number.parseInt(process.versions.node, 10) >= NODE_MAJOR_MIN) return;
  die(`this needs Node ${NODE_MAJOR_MIN} or newer; what runs is ${process.version}`);
}

// ---- npm packages ----------------------------------------------------------------------------

const lockFile = join(root, 'package-lock.json');
const packagesStamp = join(root, 'node_modules', '.setup-stamp');

function packagesMatch() {
  const wanted = sha256(readFileSync(lockFile));
  if (readIfThere(packagesStamp) === wanted) return true;
  if (!installedByHand()) return false;
  writeFileSync(packagesStamp, wanted);
  return true;
}

/** Compares what npm says it installed, so that a person's own `npm ci` is not done again. */
function installedByHand() {
  const text = readIfThere(join(root, 'node_modules', '.package-lock.json'));
  if (text === undefined) return false;
  const installed = JSON.parse(text).packages;
  return Object.entries(JSON.parse(readFileSync(lockFile, 'utf8')).packages).every(
    ([path, { version, optional }]) =>
      path === '' || (installed[path] ? installed[path].version === version : optional === true),
  );
}

function installPackages() {
  say('installing npm packages…');
  // Development packages are what builds this, whatever NODE_ENV says; none needs its scripts.
  // A registry may be out of reach for a moment.
  const patience = '--fetch-retries=5';
  const args = ['ci', '--include=dev', '--ignore-scripts', '--loglevel=error', patience];
  const cli = process.env.npm_execpath;
  const status =
    cli && /npm-cli\.c?js$/.test(cli)
      ? runQuietly(process.execPath, [cli, ...args])
      : runQuietly(process.platform === 'win32' ? 'npm.cmd' : 'npm', args);
  if (status !== 0) die('npm ci failed: see above');
  writeFileSync(packagesStamp, sha256(readFileSync(lockFile)));
}

// ---- the build -------------------------------------------------------------------------------

const buildStamp = join(root, 'dist', '.stamp');
const BUILD_INPUTS = [
  'assembly',
  'src',
  'scripts/build.js',
  'package-lock.json',
  'asconfig.json',
  'tsconfig.json',
  'tsconfig.build.json',
];

function buildMatches() {
  return readIfThere(buildStamp) === sourceStamp();
}

/** Changes whenever a file that dist/ is made from does. Reads no file, only their dates. */
export function sourceStamp() {
  const hash = createHash('sha256');
  for (const path of BUILD_INPUTS) addToStamp(hash, path);
  return hash.digest('hex');
}

function addToStamp(hash, path) {
  const stat = statSync(join(root, path), { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isDirectory()) {
    hash.update(`${path}\0${stat.size}\0${stat.mtimeMs}\n`);
    return;
  }
  for (const name of readdirSync(join(root, path)).sort()) addToStamp(hash, `${path}/${name}`);
}

// ---- Debian packages -------------------------------------------------------------------------

function hasDebianPackage(name) {
  const { stdout } = spawnSync('dpkg-query', ['--status', name], { encoding: 'utf8' });
  return /^Status: .* installed$/m.test(stdout ?? '');
}

function installDebian(packages) {
  const missing = packages.filter((name) => !hasDebianPackage(name));
  if (missing.length === 0) return;
  const list = missing.join(', ');
  if (process.getuid?.() !== 0 || !findProgram('apt-get')) {
    say(`these Debian packages are missing, and what needs them is left out: ${list}`);
    return;
  }
  say(`installing Debian packages: ${list}`);
  const aptGet = (...args) =>
    runQuietly('apt-get', ['-qq', '-o', 'DPkg::Lock::Timeout=120', ...args], {
      ...process.env,
      DEBIAN_FRONTEND: 'noninteractive',
    });
  // A stale package list is no reason to give up: the install below decides.
  aptGet('update');
  if (aptGet('install', '-y', '--no-install-recommends', ...missing) !== 0) {
    say(`could not install ${list}: what needs them is left out`);
  }
}

/** Where a program is in the PATH, or nothing. */
export function findProgram(name) {
  const folders = (process.env.PATH || '').split(delimiter).filter(Boolean);
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
}

// ---- one at a time ---------------------------------------------------------------------------

const lock = join(root, '.cache', 'setup.lock');
const breaking = `${lock}.breaking`;
const BREAKING_MS_MAX = 10_000;

/** Runs `work` while no other process of this checkout does. A lock whose owner died is taken. */
export async function withLock(work) {
  mkdirSync(dirname(lock), { recursive: true });
  for (let tries = 0; !takeLock(); tries++) {
    if (tries === 10) say('waiting for another set-up to finish…');
    breakStaleLock();
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  // The owner's number is in the link's target, so it is there from the first moment on.
  const release = () => {
    if (lockOwner() === process.pid) unlinkSync(lock);
  };
  process.once('exit', release);
  try {
    return await work();
  } finally {
    process.off('exit', release);
    release();
  }
}

function takeLock() {
  try {
    symlinkSync(String(process.pid), lock);
    return true;
  } catch (err) {
    if (err.code === 'EEXIST') return false;
    throw err;
  }
}

function lockOwner() {
  try {
    return Number(readlinkSync(lock));
  } catch {
    return undefined;
  }
}

/** Two processes may find the same stale lock; the second must not remove the first one's new. */
function breakStaleLock() {
  const owner = lockOwner();
  if (owner === undefined || isAlive(owner)) return;
  try {
    mkdirSync(breaking);
  } catch {
    const since = statSync(breaking, { throwIfNoEntry: false })?.mtimeMs;
    if (since !== undefined && Date.now() - since > BREAKING_MS_MAX) rmdirSync(breaking);
    return;
  }
  try {
    if (lockOwner() === owner) unlinkSync(lock);
  } finally {
    rmdirSync(breaking);
  }
}

/** Whether a process with this number runs. */
export function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (err) {
    return err.code === 'EPERM';
  }
}

// ---- small things ----------------------------------------------------------------------------

/** Runs a program; what it prints goes to our stderr. Returns its exit code. */
export function runQuietly(command, args, env = process.env) {
  const { status, error } = spawnSync(command, args, { cwd: root, env, stdio: ['ignore', 2, 2] });
  if (error) say(`${command}: ${error.message}`);
  return status;
}

function readIfThere(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

function sha256(bytes) {
  return createHash('sha256').update(bytes).digest('hex');
}

// Not awaited: build.js imports this module, and would wait for it while it waits for build.js.
if (isMain(import.meta.url)) ensureSetup({ build: !process.argv.includes('--no-build') });
