/**
 * Settings of QEMU's qcow2 driver that tune it. Discards and overlap checks follow them. Caches and
 * timers of this library have their own sizes, but that steps are cut where QEMU's caches would cut
 * them; what QEMU would refuse is refused all the same.
 */
import { Qcow2Error } from '../base/errors.ts';
import type { Geometry } from '../format/geometry.ts';
import { CryptMethod, type Header } from '../format/header.ts';
import type { OpenDiskOptions } from '../image/open.ts';
import type { GuardedKind } from '../image/qcow2/overlap-options.ts';
import { parseSizeParameter } from './option-list.ts';
import { type Settings, settingsUnder, switchOf, textOf } from './settings.ts';

/** What of opening a disk the settings are about. */
type Tuning = Pick<
  OpenDiskOptions,
  | 'passDiscardRequest'
  | 'passDiscardSnapshot'
  | 'passDiscardOther'
  | 'overlapCheck'
  | 'lazyRefcounts'
  | 'qemuCaches'
>;

/** What settings are judged by: an image's metadata, as far as they are about it. */
export interface TunedImage {
  readonly header: Pick<Header, 'size' | 'version' | 'cryptMethod' | 'incompatible'>;
  readonly geometry: Pick<Geometry, 'clusterSize'>;
}

/** Kinds of metadata that `overlap-check.KIND` is about. */
const GUARDED = [
  'main-header',
  'active-l1',
  'active-l2',
  'refcount-table',
  'refcount-block',
  'snapshot-table',
  'inactive-l1',
  'inactive-l2',
  'bitmap-directory',
] as const satisfies readonly GuardedKind[];
const SWITCHES = [
  'lazy-refcounts',
  'pass-discard-request',
  'pass-discard-snapshot',
  'pass-discard-other',
  ...GUARDED.map((kind) => `overlap-check.${kind}`),
];
const SIZES = ['cache-size', 'l2-cache-size', 'l2-cache-entry-size', 'refcount-cache-size'];
const CACHE_TOTAL = 'cache-size';
const CACHE_PARTS = ['l2-cache-size', 'refcount-cache-size'];
const OVERLAP = ['overlap-check', 'overlap-check.template'];
const OVERLAP_LEVELS = ['none', 'constant', 'cached', 'all'] as const;
const INTERVAL = 'cache-clean-interval';

const ENTRY_BYTES_MIN = 512;
const INT_MAX = 2n ** 31n - 1n;

/** True for the name of such a setting. */
export function isTuning(name: string): boolean {
  return [SWITCHES, SIZES, OVERLAP, INTERVAL].flat().includes(name);
}

/**
 * The settings of a disk that is opened once more: new ones, and old ones that stay in force. A
 * new level of overlap checks stands for all of them, a new size of all caches for that of each,
 * and the other way round.
 */
export function joinTuning(old: Settings, fresh: Settings): Settings {
  const overridden = new Set<string>();
  if (OVERLAP.some((name) => fresh.has(name))) {
    for (const name of [...OVERLAP, ...SWITCHES]) {
      if (name.startsWith('overlap-check')) overridden.add(name);
    }
  }
  if (fresh.has(CACHE_TOTAL)) for (const name of CACHE_PARTS) overridden.add(name);
  if (CACHE_PARTS.some((name) => fresh.has(name))) overridden.add(CACHE_TOTAL);
  const joined = new Map([...old].filter(([name]) => !overridden.has(name)));
  for (const [name, value] of fresh) joined.set(name, value);
  return joined;
}

/** What the settings mean for opening; those that are wrong are `checkTuning`'s to refuse. */
export function openTuning(settings: Settings): Tuning {
  const flag = (name: string) => {
    const text = textOf(settings, name);
    return text === 'on' ? true : text === 'off' ? false : undefined;
  };
  const level = textOf(settings, 'overlap-check') ?? textOf(settings, 'overlap-check.template');
  const single = GUARDED.map((kind) => [kind, flag(`overlap-check.${kind}`)] as const);
  return {
    passDiscardRequest: flag('pass-discard-request'),
    passDiscardSnapshot: flag('pass-discard-snapshot'),
    passDiscardOther: flag('pass-discard-other'),
    lazyRefcounts: flag('lazy-refcounts'),
    qemuCaches: caches(settings),
    overlapCheck: {
      template: OVERLAP_LEVELS.find((one) => one === level) ?? 'cached',
      ...Object.fromEntries(single.filter(([, on]) => on !== undefined)),
    },
  };
}

/** Sizes of caches; `checkTuning` refuses what is none. */
function caches(settings: Settings): Tuning['qemuCaches'] {
  const size = (name: string) => {
    try {
      const bytes = sizeOf(settings, name, -1n);
      return bytes < 0n ? undefined : Number(bytes);
    } catch {
      return undefined;
    }
  };
  const [total, l2, l2Entry, refcounts] = SIZES.map(size);
  return { total, l2, l2Entry, refcounts };
}

/** @throws Qcow2Error OUT_OF_RANGE or HintedError, in QEMU's words, for what it refuses */
export function checkTuning(settings: Settings, image: TunedImage): void {
  for (const name of SWITCHES) switchOf(settings, name);
  checkCaches(settings, image);
  const interval = sizeOf(settings, INTERVAL, 0n);
  if (interval >= 2n ** 32n) throw wrong('Cache clean interval too big');
  if (switchOf(settings, 'lazy-refcounts') && image.header.version < 3) {
    const level = 'with at least qemu 1.1 compatibility level';
    throw wrong(`Lazy refcounts require a qcow2 image ${level}`);
  }
  checkOverlap(settings);
  checkEncryption(settings, image.header.cryptMethod);
}

/** What the settings say of the encryption has to be what the header says. */
function checkEncryption(settings: Settings, method: number): void {
  const own = settingsUnder(settings, 'encrypt');
  const said = textOf(own, 'format');
  if (method === CryptMethod.none) {
    if (said === undefined) return;
    throw wrong(`No encryption in image header, but options specified format '${said}'`);
  }
  const format = method === CryptMethod.aes ? 'aes' : 'luks';
  if (said !== undefined && said !== format) {
    const what = `but options specify '${said}'`;
    throw wrong(`Header reported '${format}' encryption format ${what}`);
  }
  const other = [...own.keys()].find((name) => name !== 'format' && name !== 'key-secret');
  if (other !== undefined) throw wrong(`Parameter '${other}' is unexpected`);
}

function checkCaches(settings: Settings, { header, geometry }: TunedImage): void {
  const { clusterSize } = geometry;
  const [total, l2, entry, refcounts] = SIZES.map((name) => sizeOf(settings, name, -1n)) as [
    bigint,
    bigint,
    bigint,
    bigint,
  ];
  if (total >= 0n && l2 >= 0n && refcounts >= 0n) {
    const names = 'cache-size, l2-cache-size and refcount-cache-size';
    throw wrong(`${names} may not be set at the same time`);
  }
  if (total >= 0n && l2 > total) throw wrong('l2-cache-size may not exceed cache-size');
  if (total >= 0n && refcounts > total)
    throw wrong('refcount-cache-size may not exceed cache-size');
  const entryBytes = entry < 0n ? BigInt(clusterSize) : entry;
  const isPower = entryBytes > 0n && (entryBytes & (entryBytes - 1n)) === 0n;
  if (!isPower || entryBytes < ENTRY_BYTES_MIN || entryBytes > clusterSize) {
    const range = `between ${ENTRY_BYTES_MIN} and the cluster size (${clusterSize})`;
    throw wrong(`L2 cache entry size must be a power of two ${range}`);
  }
  // More than the disk's tables take is never used.
  const tables = BigInt(Math.ceil(header.size / clusterSize)) * 8n;
  const used = l2 < tables ? l2 : tables;
  if (used / entryBytes > INT_MAX) throw wrong('L2 cache size too big');
  if (refcounts / BigInt(clusterSize) > INT_MAX) throw wrong('Refcount cache size too big');
}

function checkOverlap(settings: Settings): void {
  const [short, long] = OVERLAP.map((name) => textOf(settings, name));
  if (short !== undefined && long !== undefined && short !== long) {
    const values = `'overlap-check' ('${short}') and 'overlap-check.template' ('${long}')`;
    throw wrong(`Conflicting values for qcow2 options ${values}`);
  }
  const level = short ?? long;
  if (level === undefined || OVERLAP_LEVELS.some((one) => one === level)) return;
  const allowed = `Allowed are any of the following: ${OVERLAP_LEVELS.join(', ')}`;
  throw wrong(`Unsupported value '${level}' for qcow2 option 'overlap-check'. ${allowed}`);
}

/** Bytes, or a number for the interval, which QEMU reads as one that wraps around. */
function sizeOf(settings: Settings, name: string, absent: bigint): bigint {
  const text = textOf(settings, name);
  if (text === undefined) return absent;
  if (name === INTERVAL) {
    if (/^\s*[+-]?\d+$/.test(text)) return BigInt.asUintN(64, BigInt(text));
    throw wrong(`Parameter '${name}' expects a number`);
  }
  return parseSizeParameter(name, text);
}

function wrong(message: string): Qcow2Error {
  return new Qcow2Error('OUT_OF_RANGE', message);
}
